"""The three embedded parts as one: started at the same time, stopped in reverse, one parent to a state folder."""

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from service.embedded.errors import PlatformUnsupported
from service.embedded.folder import StateFolder
from service.embedded.llm import Llm, start_llm
from service.embedded.postgres import Postgres, start_postgres
from service.embedded.valkey import Valkey, start_valkey

DEFAULT_STATE_DIR = Path(".atp")

Say = Callable[[str], None]


class Part(Protocol):
    async def stop(self) -> None: ...


@dataclass(frozen=True)
class Ports:
    """0 picks a free one."""

    postgres: int = 0
    valkey: int = 0
    llm: int = 0


SPOKEN = {"postgres": "PostgreSQL", "valkey": "Valkey", "llm": "Small LLM"}
WATCH_EVERY_S = 1.0
ALL_PARTS = frozenset(SPOKEN)


class EmbeddedParts:
    """`async with EmbeddedParts(...) as parts:` then parts.postgres.dsn, parts.valkey.url, parts.llm.base_url.

    Enter and leave on the same thread, one that lasts: the children end with the thread that started them.
    Raises EmbeddedError with a one-line message; whatever had been started is stopped again.
    """

    postgres: Postgres | None = None
    valkey: Valkey | None = None
    llm: Llm | None = None

    def __init__(
        self,
        state_dir: Path = DEFAULT_STATE_DIR,
        ports: Ports = Ports(),
        say: Say = print,
        wanted: frozenset[str] = ALL_PARTS,
    ) -> None:
        self._wanted = wanted
        self._state_dir = state_dir
        self._ports = ports
        self._say = say
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "EmbeddedParts":
        if platform.system() != "Linux":  # children are tied to us by prctl(2) and found in /proc
            raise PlatformUnsupported(platform.system())
        async with AsyncExitStack() as stack:
            stack.enter_context(StateFolder.open(self._state_dir).locked())
            await self._start_all(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def watch(self) -> None:
        """Say of a part that ended by itself that it did, once; ATP goes on without it as it would in production."""
        running = {name: part for name in self._wanted if (part := getattr(self, name))}
        while running:
            await asyncio.sleep(WATCH_EVERY_S)
            for name, part in list(running.items()):
                if part.child.exit_code is not None:
                    del running[name]
                    self._say(
                        f"{SPOKEN[name]} has ended by itself; its log is {part.child.log}. Ctrl-C and start again."
                    )

    async def _start_all(self, stack: AsyncExitStack) -> None:
        """All at once; the first failure cancels the other starts and is raised by itself."""
        where, ports = self._state_dir, self._ports
        starters: dict[str, Callable[[], Awaitable[Part]]] = {
            "llm": lambda: start_llm(where, ports.llm),
            "valkey": lambda: start_valkey(where, ports.valkey),
            "postgres": lambda: start_postgres(where, ports.postgres, say=self._say),
        }
        try:
            async with asyncio.TaskGroup() as starts:
                for name, start in starters.items():
                    if name in self._wanted:
                        starts.create_task(self._start(name, start(), stack))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _start(self, name: str, starting: Awaitable[Part], stack: AsyncExitStack) -> None:
        begun = time.monotonic()
        part = await starting
        stack.push_async_callback(part.stop)
        setattr(self, name, part)
        self._say(f"{SPOKEN[name]}: ready in {time.monotonic() - begun:.1f} s")
