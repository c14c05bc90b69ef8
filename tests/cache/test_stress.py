"""Many readers of few keys on two nodes, who leave when they like, over calls that fail now and then."""

import asyncio
import os
import random

from service.errors import UpstreamError
from tests.cache.nodes import CacheNode, Call, leads
from tests.waiting import eventually

READERS = int(os.environ.get("ATP_CACHE_READERS", "600"))


class Slow(Call):
    """A stream with a pause before each piece."""

    async def begin(self):  # type: ignore[no-untyped-def]
        self.begun += 1
        try:
            for item in self.items:
                await asyncio.sleep(random.random() / 200)
                if self.failure and item == self.items[-1]:
                    raise self.failure
                yield item
        finally:
            self.ended += 1


async def test_whoever_stays_gets_the_whole_of_what_was_asked_and_nothing_is_left_over(
    first: CacheNode, second: CacheNode, redis_url: str
) -> None:
    random.seed(7)
    calls: list[Slow] = []
    outcomes: list[str] = []

    async def read(number: int) -> None:
        key, node = f"key-{number % 20}", random.choice((first, second))
        failure = UpstreamError() if random.random() < 0.1 else None
        call = Slow("a", "b", f"whole of {key}", failure=failure)
        calls.append(call)
        await asyncio.sleep(random.random() / 2)
        async with node.open(key, call, read=random.random() > 0.05) as reader:
            got = [item async for item in reader]
        assert got in (["a", "b", f"whole of {key}"], [f"whole of {key}"])
        outcomes.append("whole")

    async def read_or_leave(number: int) -> None:
        task = asyncio.create_task(read(number))
        if random.random() < 0.3:
            await asyncio.sleep(random.random() / 2)
            task.cancel()
        try:
            await task
        except (UpstreamError, asyncio.CancelledError):
            outcomes.append("none")
        if number % 100 == 0:
            await random.choice((first, second)).flushes.flush(None)

    await asyncio.gather(*(read_or_leave(number) for number in range(READERS)))
    assert len(outcomes) == READERS
    assert outcomes.count("whole") > READERS / 2
    for node in (first, second):
        await eventually(lambda node=node: not node.flights._tasks and not node.flights._flying)
        assert node.leads._held == {}
    assert sum(call.begun for call in calls) == sum(call.ended for call in calls)
    assert leads(redis_url) == 0
