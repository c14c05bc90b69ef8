"""Commands of many callers in few round trips: each gets its own answer, and nobody another's failure."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis

from service.errors import StateRejected, StateUnavailable
from service.settings import load
from service.state.pipeline import Pipeline
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.redis_topologies import Cluster
from tests.servers import OwnValkey


class Opened:
    def __init__(self, url: str) -> None:
        self.metrics = Metrics()
        self.redis = RedisState(load(redis_url=url), self.metrics)
        self.pipeline = Pipeline(self.redis, "test")

    def round_trips(self) -> float | None:
        labels = {"system": "redis", "operation": "test"}
        return self.metrics.registry.get_sample_value("db_client_operation_duration_seconds_count", labels)

    async def close(self) -> None:
        await self.pipeline.close()
        await self.redis.close()


@pytest.fixture
async def opened(redis_url: str) -> AsyncIterator[Opened]:
    found = Opened(redis_url)
    yield found
    await found.close()


async def test_callers_at_the_same_time_share_round_trips_and_each_gets_its_own(opened: Opened) -> None:
    run = opened.pipeline.run
    await asyncio.gather(*(run(lambda p, n=n: p.set(f"key-{n}", n)) for n in range(100)))
    found = await asyncio.gather(*(run(lambda p, n=n: p.get(f"key-{n}")) for n in range(100)))
    assert found == [str(n).encode() for n in range(100)]
    assert opened.round_trips() == 14  # sixteen commands each


async def test_who_comes_back_with_the_next_command_at_once_is_answered_too(opened: Opened) -> None:
    async def count(name: str) -> int:
        for _ in range(50):
            found = await opened.pipeline.run(lambda p: p.incr(name))
        return int(found)

    async with asyncio.timeout(5):
        assert await asyncio.gather(*(count(f"key-{n}") for n in range(20))) == [50] * 20
        assert await count("alone") == 50


async def test_a_refused_command_is_its_callers_alone(opened: Opened, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("hash", "field", "value")
        client.set("text", "value")
    run = opened.pipeline.run
    wrong, right = await asyncio.gather(
        run(lambda p: p.get("hash")), run(lambda p: p.get("text")), return_exceptions=True
    )
    assert (type(wrong), right) == (StateRejected, b"value")
    with pytest.raises(StateRejected):  # also where nobody else asks
        await run(lambda p: p.get("hash"))


async def test_one_who_leaves_does_not_take_the_others_along(opened: Opened) -> None:
    run = opened.pipeline.run
    leaving, staying = (asyncio.create_task(run(lambda p: p.ping())) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is True


async def test_a_silent_redis_fails_all_who_wait_at_once(own_valkey: OwnValkey) -> None:
    opened = Opened(own_valkey.url)
    await opened.pipeline.run(lambda p: p.ping())
    own_valkey.freeze()
    try:
        started = time.monotonic()
        calls = [opened.pipeline.run(lambda p: p.get("key")) for _ in range(500)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StateUnavailable}
        assert time.monotonic() - started < 1.0
    finally:
        own_valkey.thaw()
        await opened.close()


async def test_whoever_waits_when_it_closes_is_told(own_valkey: OwnValkey) -> None:
    opened = Opened(own_valkey.url)
    own_valkey.freeze()
    try:
        calls = [asyncio.create_task(opened.pipeline.run(lambda p: p.get("key"))) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await opened.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 2)
        assert {type(outcome) for outcome in outcomes} == {StateUnavailable}
    finally:
        own_valkey.thaw()


async def test_a_cluster_answers_across_its_slots(redis_cluster: Cluster) -> None:
    opened = Opened(redis_cluster.url)
    run = opened.pipeline.run
    await asyncio.gather(*(run(lambda p, n=n: p.set(f"pipeline-{n}", n)) for n in range(40)))
    found = await asyncio.gather(*(run(lambda p, n=n: p.get(f"pipeline-{n}")) for n in range(40)))
    assert found == [str(n).encode() for n in range(40)]
    await opened.close()
