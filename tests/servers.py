"""Real servers as tests use them: run from a synchronous fixture, and private ones that may be killed or frozen."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar

import psutil

from service.embedded.postgres import Postgres
from service.embedded.valkey import Valkey
from tests.ports import reserved_port

T = TypeVar("T")
S = TypeVar("S", Postgres, Valkey)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, leaving alone the one that pytest-asyncio manages; servers outlive the loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class OwnServer(Generic[S]):
    """A server of one test's own; it comes back on the same port, which nobody takes meanwhile, with the same data."""

    def __init__(self, start: Callable[[int], Awaitable[S]], port: int) -> None:
        self._start, self._port = start, port
        self.server: S

    @classmethod
    @contextmanager
    def started(cls, start: Callable[[int], Awaitable[S]]) -> Iterator[Self]:
        """`start` is given the port."""
        with reserved_port() as port:
            own = cls(start, port)
            run(own.start())
            yield own
            run(own.kill())

    async def start(self) -> None:
        self.server = await self._start(self._port)

    async def kill(self) -> None:
        """As `kill -9` of all its processes."""
        await self.server.kill()

    async def stop(self) -> None:
        """In order; the address then refuses connections."""
        await self.server.stop()

    async def restart(self) -> None:
        """Bring it back after kill() or stop()."""
        await self.start()

    def freeze(self) -> None:
        """Connections stay open and the address accepts more, but nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        parent = psutil.Process(self.server.child.pid)
        for process in (parent, *parent.children(recursive=True)):
            process.send_signal(number)


class OwnPostgres(OwnServer[Postgres]):
    @property
    def dsn(self) -> str:
        """Of the database `atp`, migrated."""
        return self.server.dsn


class OwnValkey(OwnServer[Valkey]):
    @property
    def url(self) -> str:
        return self.server.url
