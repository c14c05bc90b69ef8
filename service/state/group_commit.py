"""Group commit: those that come while one write is on its way share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from service.background import shared_task
from service.telemetry.operations import Wait, wait_for

Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Outcome]):
    """A caller notes its part, then joins. `write` takes all parts noted so far before it first awaits.

    1. One write is on its way; at most one more waits for its end.
    2. Who joins is answered by the write that waits, so by one that began after it came; the first one makes it.
    3. A caller that is cancelled takes nothing from the others; its part is written if the write began.

    What is noted is bounded by the callers, who wait.
    """

    def __init__(self, write: Callable[[], Awaitable[Outcome]], name: str) -> None:
        self._write, self._name = write, name
        self._running: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._joined: list[tuple[asyncio.Future[Outcome], Wait]] = []

    @property
    def idle(self) -> bool:
        return self._waiting is None and (self._running is None or self._running.done())

    async def join(self) -> Outcome:
        """What came of the write that contains what was noted before this call; raises as `write`."""
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        with wait_for(self._name) as wait:
            self._joined.append((answered, wait))
            if self._waiting is None:
                self._waiting = shared_task(self._begin(self._running), self._name)
            return await answered

    async def close(self) -> None:
        """Wait for the writes on their way; each ends by its own deadline."""
        if tasks := [task for task in (self._running, self._waiting) if task]:
            await asyncio.wait(tasks)

    async def _begin(self, before: asyncio.Task[None] | None) -> None:
        if before and not before.done():
            await asyncio.wait([before])
            await asyncio.sleep(0)  # those it answered may come again at once, and join
        self._running, self._waiting = self._waiting, None
        joined = [answered for answered, _ in self._joined]
        for _, wait in self._joined:
            wait.sent()
        self._joined = []
        try:
            outcome = await self._write()
        except asyncio.CancelledError:
            for answered in joined:
                answered.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - theirs who joined
            for answered in waiting(joined):
                answered.set_exception(error)
        else:
            for answered in waiting(joined):
                answered.set_result(outcome)


def waiting(joined: Iterable[asyncio.Future[Outcome]]) -> Iterator[asyncio.Future[Outcome]]:
    """Those whose caller is still there."""
    return (answered for answered in joined if not answered.done())
