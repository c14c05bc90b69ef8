"""Group commit of joins and leaves: those that come while one write is on its way share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from service.presence.sessions import Session

Outcome = TypeVar("Outcome")


class Changes(Generic[Outcome]):
    """Writes the sessions that were touched, each as it is by then: `write` looks that up, so the order of touches
    does not matter, and a join and a leave of one session cost one change.

    1. `made` notes what was touched and waits for the write that will contain it.
    2. One write is on its way; at most one more waits for its end, and takes all that was touched until it starts.
    3. All who wait for a write are answered by it. A waiter that is cancelled takes nothing from the others.

    What is noted is bounded by the callers: each session touched has one waiting, or is one of those of `begin`.
    """

    def __init__(self, write: Callable[[Sequence[Session]], Awaitable[Outcome]]) -> None:
        self._write = write
        self._touched: dict[str, Session] = {}
        self._running: asyncio.Task[Outcome] | None = None
        self._waiting: asyncio.Task[Outcome] | None = None

    @property
    def idle(self) -> bool:
        return self._waiting is None and (self._running is None or self._running.done())

    async def made(self, sessions: Iterable[Session]) -> Outcome:
        """Return, once it has ended, what came of a write that began after this call."""
        for session in sessions:
            self._touched[session.session_id] = session
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._flush(self._running), name="presence-changes")
        return await asyncio.shield(self._waiting)

    async def close(self) -> None:
        """Wait for the writes on their way; each ends by its own deadline."""
        if tasks := [task for task in (self._running, self._waiting) if task]:
            await asyncio.wait(tasks)

    async def _flush(self, before: asyncio.Task[Outcome] | None) -> Outcome:
        if before:
            await asyncio.wait([before])
        self._running, self._waiting = self._waiting, None
        touched, self._touched = self._touched, {}
        return await self._write(list(touched.values()))
