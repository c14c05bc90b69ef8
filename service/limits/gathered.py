"""Group commit of hits: those that come while one call to Redis is on its way share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from service.limits.hits import Hit, Outcome
from service.state.failover import Answered

Answers = Answered[list[Outcome]]


class Gathered:
    """`ask` takes many hits in one round trip.

    1. A hit joins the call that waits to begin; the first one makes it.
    2. One call is on its way; the next begins when that has ended, with all hits that came until then.
    3. A caller that is cancelled takes nothing from the others; its hit counts if it was sent.

    What waits is bounded by the callers, who have one hit each.
    """

    def __init__(self, ask: Callable[[Sequence[Hit]], Awaitable[Answers]]) -> None:
        self._ask = ask
        self._hits: list[Hit] = []
        self._waiting: asyncio.Task[Answers] | None = None
        self._running: asyncio.Task[Answers] | None = None

    async def hit(self, hit: Hit) -> tuple[Outcome, bool]:
        """Its outcome, and whether it is of this node alone."""
        at = len(self._hits)
        self._hits.append(hit)
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._send(self._running), name="limits")
        answered = await asyncio.shield(self._waiting)
        return answered.result[at], answered.degraded

    async def close(self) -> None:
        """Wait for the calls on their way; each ends by its own deadline."""
        if tasks := [task for task in (self._running, self._waiting) if task]:
            await asyncio.wait(tasks)

    async def _send(self, before: asyncio.Task[Answers] | None) -> Answers:
        if before and not before.done():
            await asyncio.wait([before])
            await asyncio.sleep(0)  # those it answered may ask again at once, and join
        self._running, self._waiting = self._waiting, None
        hits, self._hits = self._hits, []
        return await self._ask(hits)
