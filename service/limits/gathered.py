"""Hits that come while one call to Redis is on its way share the next."""

from collections.abc import Awaitable, Callable, Sequence

from service.limits.hits import Hit, Outcome
from service.state.failover import Answered
from service.state.group_commit import GroupCommit

Answers = Answered[list[Outcome]]


class Gathered:
    """`ask` takes many hits in one round trip."""

    def __init__(self, ask: Callable[[Sequence[Hit]], Awaitable[Answers]]) -> None:
        self._ask = ask
        self._hits: list[Hit] = []
        self._commit = GroupCommit(self._send, "limits")

    async def hit(self, hit: Hit) -> tuple[Outcome, bool]:
        """Its outcome, and whether it is of this node alone."""
        at = len(self._hits)
        self._hits.append(hit)
        answered = await self._commit.join()
        return answered.result[at], answered.degraded

    async def close(self) -> None:
        await self._commit.close()

    async def _send(self) -> Answers:
        hits, self._hits = self._hits, []
        return await self._ask(hits)
