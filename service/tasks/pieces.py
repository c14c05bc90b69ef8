"""The answer of a task while it is written, gathered so that it costs few messages."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from service.background import end

# Between two messages of one agent, unless a whole piece is there before.
EVERY_S = 0.25
# A character takes at most six bytes as JSON, and a message of the bus 16 KB.
PIECE_CHARACTERS = 2_000
# What a model writes faster than it can be told is lost beyond this: sixteen messages.
WAITING_CHARACTERS = 32_000
# How long a run that has its answer waits until the last pieces are told: a round trip, unless Redis is in trouble.
LAST_S = 0.5


@dataclass(slots=True)
class Piece:
    """`at`: so many characters of the agent's answer came before it, told or lost."""

    agent: str
    at: int
    text: str


class Pieces:
    """`async with Pieces(tell) as pieces:` around a run, which never waits to `add`. `tell` raises nothing.

    What waits is told by a task of its own; at the end of a run that went well the rest, for LAST_S at most.
    """

    def __init__(self, tell: Callable[[Piece], Awaitable[None]], every_s: float = EVERY_S) -> None:
        self._tell, self._every_s = tell, every_s
        self._given: defaultdict[str, int] = defaultdict(int)  # characters so far, by agent
        self._waiting: deque[Piece] = deque()
        self._growing: dict[str, Piece] = {}  # the last of each agent's among those that wait
        self._characters = 0
        self._some, self._hurry = asyncio.Event(), asyncio.Event()
        self._over = False

    async def __aenter__(self) -> "Pieces":
        self._telling = asyncio.create_task(self._run(), name="task-pieces")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over = True
        self._some.set()
        self._hurry.set()
        if kind is None:
            await asyncio.wait([self._telling], timeout=LAST_S)
        await end(self._telling)

    def add(self, agent: str, text: str) -> None:
        for start in range(0, len(text), PIECE_CHARACTERS):
            self._add(agent, text[start : start + PIECE_CHARACTERS])

    def _add(self, agent: str, text: str) -> None:
        at = self._given[agent]
        self._given[agent] += len(text)
        if self._characters + len(text) > WAITING_CHARACTERS:
            return
        piece = self._growing.get(agent)
        if piece is None or at != piece.at + len(piece.text) or len(piece.text) + len(text) > PIECE_CHARACTERS:
            if piece is not None:
                self._hurry.set()
            piece = self._growing[agent] = Piece(agent, at, "")
            self._waiting.append(piece)
        piece.text += text
        self._characters += len(text)
        self._some.set()

    async def _run(self) -> None:
        while not self._over or self._waiting:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s * len(self._growing)):
                    await self._hurry.wait()
            await self._tell_waiting()

    async def _tell_waiting(self) -> None:
        """Those that wait now: what comes meanwhile is gathered anew."""
        self._some.clear()
        self._hurry.clear()
        for _ in range(len(self._waiting)):
            piece = self._waiting.popleft()
            self._characters -= len(piece.text)
            if self._growing.get(piece.agent) is piece:
                del self._growing[piece.agent]
            await self._tell(piece)
