"""The one fallback: the same contract over memory, Redis, and a Redis that is killed or frozen in the middle."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from service.errors import SettingsError, StateUnavailable
from service.settings import load
from service.state.failover import Answered, Failover
from service.state.redis import RedisState, parse
from service.telemetry.metrics import Metrics
from tests.redis_topologies import Cluster, SentinelTrio
from tests.servers import OwnValkey
from tests.state.conftest import Marks, MemoryMarks, RedisMarks, Watched
from tests.waiting import eventually


async def keeps_the_contract(marks: Marks) -> None:
    assert not await marks.has("a")
    await marks.add("a")
    await marks.add("a")
    assert await marks.has("a")
    assert not await marks.has("b")


async def test_memory_keeps_the_contract() -> None:
    await keeps_the_contract(MemoryMarks())


async def test_redis_keeps_the_contract(redis_url: str) -> None:
    redis = RedisState(load(redis_url=redis_url), Metrics())
    await keeps_the_contract(RedisMarks(redis))
    await redis.close()


async def test_failover_uses_redis_while_it_answers(redis_url: str, watch: Callable[[str], Any]) -> None:
    watched: Watched = await watch(redis_url)
    await watched.marks.call(lambda marks: marks.add("a"))
    assert await watched.redis.has("a")
    assert watched.memory.names == set()
    assert not watched.marks.degraded
    assert watched.gauge("atp_dependency_up", dependency="redis") == 1


async def outage_under_load(watched: Watched, begin: Callable[[], Any]) -> tuple[float, list[float]]:
    """Call every 10 ms through the start of an outage; seconds until the breaker opened, and each call's seconds."""
    durations: list[float] = []

    async def one(number: int) -> None:
        started = time.monotonic()
        await watched.marks.call(lambda marks: marks.add(f"call-{number}"))
        durations.append(time.monotonic() - started)

    async with asyncio.TaskGroup() as calls:
        calls.create_task(one(0))
        await asyncio.sleep(0)
        result = begin()
        if asyncio.iscoroutine(result):
            await result
        began = time.monotonic()
        number = 0
        while watched.breaker.closed:
            assert time.monotonic() - began < 3
            number += 1
            calls.create_task(one(number))
            await asyncio.sleep(0.01)
        opened_s = time.monotonic() - began
    return opened_s, durations


async def test_a_killed_redis_opens_the_breaker_in_a_second_and_no_call_fails(
    own_valkey: OwnValkey, watch: Callable[[str], Any]
) -> None:
    watched: Watched = await watch(own_valkey.url)
    opened_s, durations = await outage_under_load(watched, own_valkey.kill)
    assert opened_s < 1.0
    assert max(durations) < 1.0
    assert watched.marks.degraded
    assert watched.gauge("atp_dependency_up", dependency="redis") == 0
    assert watched.gauge("atp_degraded", dependency="redis", mode="memory") == 1
    await watched.marks.call(lambda marks: marks.add("while away"))
    assert "while away" in watched.memory.names


async def test_a_frozen_redis_opens_the_breaker_in_a_second_and_then_costs_nothing(
    own_valkey: OwnValkey, watch: Callable[[str], Any]
) -> None:
    watched: Watched = await watch(own_valkey.url)
    opened_s, durations = await outage_under_load(watched, own_valkey.freeze)
    assert opened_s < 1.0
    assert max(durations) < 0.7
    started = time.monotonic()
    for number in range(1000):
        await watched.marks.call(lambda marks, number=number: marks.add(f"open-{number}"))
    assert time.monotonic() - started < 0.5
    own_valkey.thaw()


async def test_an_idle_node_notices_an_outage_by_its_probe(own_valkey: OwnValkey, watch: Callable[[str], Any]) -> None:
    watched: Watched = await watch(own_valkey.url)
    await watched.redis.add("warm")
    own_valkey.freeze()
    assert await eventually(lambda: not watched.breaker.closed, within_s=2) < 1.0
    own_valkey.thaw()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_recovery_is_noticed_in_five_seconds_and_republishes_what_memory_held(
    own_valkey: OwnValkey, watch: Callable[[str], Any], fault: str
) -> None:
    watched: Watched = await watch(own_valkey.url)
    await watched.redis.add("before")
    if fault == "killed":
        await own_valkey.kill()
    else:
        own_valkey.freeze()
    await eventually(lambda: not watched.breaker.closed)
    await watched.marks.call(lambda marks: marks.add("meanwhile"))
    if fault == "killed":
        await own_valkey.restart()
    else:
        own_valkey.thaw()
    took_s = await eventually(lambda: watched.gauge("atp_degraded", dependency="redis", mode="memory") == 0, within_s=6)
    assert took_s < 5.0
    assert watched.recoveries == [1]
    assert await watched.marks.call(lambda marks: marks.has("meanwhile"))
    assert watched.gauge("atp_dependency_up", dependency="redis") == 1


async def test_one_slow_answer_does_not_open_the_breaker(redis_url: str, watch: Callable[[str], Any]) -> None:
    watched: Watched = await watch(redis_url)
    watched.breaker.failed("one timeout")
    await watched.marks.call(lambda marks: marks.add("next"))
    watched.breaker.failed("another, later")
    assert watched.breaker.closed


async def test_a_hook_that_fails_keeps_it_degraded(redis_url: str, watch: Callable[[str], Any]) -> None:
    watched: Watched = await watch(redis_url)
    faults = [StateUnavailable("gone again")]

    async def fails_once() -> None:
        if faults:
            raise faults.pop()

    watched.breaker.on_recovery(fails_once)
    watched.breaker.failed("1")
    watched.breaker.failed("2")
    assert not watched.breaker.closed
    await eventually(lambda: watched.breaker.closed and not faults)
    assert len(watched.recoveries) == 2


async def test_without_redis_memory_serves_and_says_so_though_nothing_is_broken() -> None:
    memory = MemoryMarks()
    marks = Failover[Marks](None, None, memory)
    await marks.call(lambda store: store.add("a"))
    assert memory.names == {"a"}
    assert await marks.ask(lambda store: store.has("a")) == Answered(True, degraded=True)
    assert not marks.degraded


async def test_the_first_call_of_an_outage_says_that_memory_answered(
    own_valkey: OwnValkey, watch: Callable[[str], Any]
) -> None:
    watched: Watched = await watch(own_valkey.url)
    await watched.redis.add("a")
    assert await watched.marks.ask(lambda marks: marks.has("a")) == Answered(True, degraded=False)
    own_valkey.freeze()
    asked = watched.marks.ask(lambda marks: marks.has("a"))
    assert watched.breaker.closed
    assert await asked == Answered(False, degraded=True)
    own_valkey.thaw()


def set_memory(url: str, most_bytes: int) -> None:
    """With 1 every write is refused: nothing may be evicted (`noeviction` is the default)."""
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", most_bytes)


async def test_a_full_redis_is_an_outage_and_is_used_again_when_it_takes_writes(
    own_valkey: OwnValkey, watch: Callable[[str], Any], said: list[str]
) -> None:
    watched: Watched = await watch(own_valkey.url)
    set_memory(own_valkey.url, 1)
    assert await watched.marks.ask(lambda marks: marks.add("meanwhile")) == Answered(None, degraded=True)
    assert await eventually(lambda: not watched.breaker.closed) < 1.0
    assert watched.gauge("atp_degraded", dependency="redis", mode="memory") == 1
    assert watched.gauge("atp_dependency_up", dependency="redis") == 0
    set_memory(own_valkey.url, 0)
    assert await eventually(lambda: bool(watched.recoveries), within_s=6) < 5.0
    assert await watched.marks.ask(lambda marks: marks.has("meanwhile")) == Answered(True, degraded=False)
    assert watched.gauge("atp_degraded", dependency="redis", mode="memory") == 0
    assert (said.count("redis.degraded"), said.count("redis.recovered")) == (1, 1)


async def test_a_full_redis_is_not_taken_for_well_again(
    own_valkey: OwnValkey, watch: Callable[[str], Any], said: list[str]
) -> None:
    watched: Watched = await watch(own_valkey.url)
    set_memory(own_valkey.url, 1)
    await watched.marks.call(lambda marks: marks.add("a"))
    await eventually(lambda: not watched.breaker.closed)
    for _ in range(5):
        await watched.breaker.probe()
        assert not watched.breaker.closed
    assert watched.recoveries == []
    assert said.count("redis.degraded") == 1


async def test_a_key_of_another_type_concerns_only_the_calls_that_need_it(
    redis_url: str, watch: Callable[[str], Any]
) -> None:
    watched: Watched = await watch(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("atp:test:{marks}", "not a set")
    for _ in range(20):
        assert (await watched.marks.ask(lambda marks: marks.add("a"))).degraded
        await watched.breaker.probe()
    assert watched.breaker.closed
    assert watched.gauge("atp_degraded", dependency="redis", mode="memory") == 0


async def test_redis_is_reached_through_sentinels(sentinel_trio: SentinelTrio) -> None:
    redis = RedisState(load(redis_url=sentinel_trio.url, redis_request_timeout=2), Metrics())
    await keeps_the_contract(RedisMarks(redis))
    await redis.close()


async def test_redis_is_reached_as_a_cluster(redis_cluster: Cluster) -> None:
    redis = RedisState(load(redis_url=redis_cluster.url, redis_request_timeout=2), Metrics())
    await keeps_the_contract(RedisMarks(redis))
    await redis.close()


@pytest.mark.parametrize(
    ("url", "hosts", "password", "path"),
    [
        (
            "redis+sentinel://:p%40ss@a:26380,b/mymaster/2",
            [("a", 26380), ("b", 26379)],
            "p@ss",
            ["mymaster", "2"],
        ),
        ("redis+cluster://n1:7000,n2:7001", [("n1", 7000), ("n2", 7001)], None, []),
    ],
)
def test_urls_with_several_hosts_are_split(
    url: str, hosts: list[tuple[str, int]], password: str | None, path: list[str]
) -> None:
    address = parse(url)
    assert (address.hosts, address.password, address.path) == (hosts, password, path)


@pytest.mark.parametrize("url", ["http://x", "redis+sentinel://a:1", "redis+cluster://a:port"])
async def test_a_wrong_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        RedisState(load(redis_url=url), Metrics())
