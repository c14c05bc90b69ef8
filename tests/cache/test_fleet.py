"""Flights of several nodes: one call for all, and another leads when the first fails, dies or is cut from Redis."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import redis

from service.cache import leads as leading
from service.cache.entry import digest, name_of
from service.cache.leads import lead_of
from service.errors import UpstreamError
from tests.cache.nodes import CacheNode, Call, cache_node, leads, stored
from tests.redis_topologies import Cluster
from tests.servers import OwnValkey
from tests.waiting import eventually


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leads of a tenth of the real length; the proportions stay."""
    monkeypatch.setattr(leading, "LEAD_MS", 1000)
    monkeypatch.setattr(leading, "RENEW_EVERY_S", 0.3)


async def test_a_stampede_of_a_hundred_over_two_nodes_is_one_call(
    first: CacheNode, second: CacheNode, redis_url: str
) -> None:
    call = Call("whole", go=False)
    asked = [asyncio.create_task(node.ask("a", call)) for _ in range(50) for node in (first, second)]
    await eventually(lambda: len(first.flights._tasks) == 1 and len(second.flights._tasks) == 1)
    await eventually(lambda: call.begun == 1)
    call.go.set()
    answers = await asyncio.gather(*asked)
    assert sorted(set(answers)) == [("whole", "miss"), ("whole", "shared")]
    assert [source for _, source in answers].count("miss") == 1
    assert call.begun == 1
    await eventually(lambda: leads(redis_url) == 0)


async def test_a_miss_costs_two_round_trips_and_a_hit_of_another_node_one(first: CacheNode, second: CacheNode) -> None:
    before = [round_trips(node) for node in (first, second)]
    assert await first.ask("a", Call("whole")) == ("whole", "miss")
    await eventually(lambda: not first.flights._tasks)
    assert await second.ask("a", Call()) == ("whole", "hit")
    await eventually(lambda: not second.flights._tasks)
    assert [round_trips(node) - was for node, was in zip((first, second), before, strict=True)] == [2, 1]


def round_trips(node: CacheNode) -> float:
    labels = {"system": "redis", "operation": "cache"}
    return node.metrics.registry.get_sample_value("db_client_operation_duration_seconds_count", labels) or 0.0


async def test_stampedes_on_many_keys_are_one_call_each(first: CacheNode, second: CacheNode) -> None:
    calls = {f"key-{number}": Call(f"answer-{number}") for number in range(50)}
    asks = [node.ask(key, call) for key, call in calls.items() for node in (first, second) for _ in range(4)]
    answers = await asyncio.gather(*asks)
    assert {call.begun for call in calls.values()} == {1}
    assert [text for text, _ in answers] == [f"answer-{number}" for number in range(50) for _ in range(8)]


async def test_what_one_node_stored_another_hits_and_then_has_in_memory(
    first: CacheNode, second: CacheNode, redis_url: str
) -> None:
    await first.ask("a", Call("whole"))
    assert await second.ask("a", Call()) == ("whole", "hit")
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert await second.ask("a", Call()) == ("whole", "hit")


async def test_when_the_leaders_call_fails_the_other_node_calls(first: CacheNode, second: CacheNode) -> None:
    failing = Call(go=False, failure=UpstreamError())
    leader = asyncio.create_task(first.ask("a", failing))
    await eventually(lambda: failing.begun == 1)
    follower = asyncio.create_task(second.ask("a", Call("whole")))
    await eventually(lambda: len(second.flights._tasks) == 1)
    failing.go.set()
    with pytest.raises(UpstreamError):
        await leader
    assert await follower == ("whole", "miss")


async def test_when_the_leaders_readers_leave_the_other_node_calls(first: CacheNode, second: CacheNode) -> None:
    held = Call(go=False)
    async with first.open("a", held):
        follower = asyncio.create_task(second.ask("a", Call("whole")))
        await eventually(lambda: len(second.flights._tasks) == 1)
    assert await follower == ("whole", "miss")
    assert held.ended == 1


async def test_an_answer_that_is_not_kept_holds_nobody_up_for_long(first: CacheNode, second: CacheNode) -> None:
    cut = Call("cut", go=False)
    leader = asyncio.create_task(first.ask("a", cut))
    await eventually(lambda: cut.begun == 1)
    follower = asyncio.create_task(second.ask("a", Call("whole")))
    cut.go.set()
    assert await leader == ("cut", "miss")
    assert await follower == ("whole", "miss")


LEADER = """
    import asyncio, sys
    from tests.cache.nodes import Call, cache_node

    async def main():
        async with cache_node(sys.argv[1]) as node:
            async with node.open("a", Call("never", go=False)) as reader:
                print(reader.source.result, flush=True)
                await anext(reader)

    asyncio.run(main())
"""


@pytest.mark.usefixtures("quick")
async def test_when_the_leaders_process_is_killed_its_lead_ends_and_another_calls(
    second: CacheNode, redis_url: str
) -> None:
    script = textwrap.dedent(LEADER).replace(
        "async def main", "from service.cache import leads\nleads.LEAD_MS = 1000\n\nasync def main"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", script, redis_url]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    assert (await process.stdout.readline()).strip() == b"miss"
    follower = asyncio.create_task(second.ask("a", Call("whole")))
    await eventually(lambda: len(second.flights._tasks) == 1)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert leads(redis_url) == 1
    died = time.monotonic()
    assert await follower == ("whole", "miss")
    assert time.monotonic() - died < 2


@pytest.mark.usefixtures("quick")
async def test_a_call_that_takes_longer_than_a_lead_keeps_it(redis_url: str) -> None:
    async with cache_node(redis_url) as first, cache_node(redis_url) as second:
        slow, never = Call("whole", go=False), Call("never")
        leader = asyncio.create_task(first.ask("a", slow))
        await eventually(lambda: slow.begun == 1)
        follower = asyncio.create_task(second.ask("a", never))
        for _ in range(15):  # 1.5 leads
            await asyncio.sleep(0.1)
            assert leads(redis_url) == 1
        slow.go.set()
        assert (await leader, await follower) == (("whole", "miss"), ("whole", "shared"))
        assert never.begun == 0


async def test_a_node_waits_no_longer_than_a_call_may_take(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wiring.cache.PATIENCE_S", 0.0)
    async with cache_node(redis_url) as first, cache_node(redis_url, llm_total_timeout=0.3) as second:
        endless = Call(go=False)
        async with first.open("a", endless):
            started = time.monotonic()
            assert await second.ask("a", Call("whole")) == ("whole", "miss")
            assert 0.3 <= time.monotonic() - started < 1.5


async def test_nobody_waits_through_more_than_two_leaders(second: CacheNode, redis_url: str) -> None:
    lead = lead_of(name_of("agent_response", digest("a")))
    moment = second.cache.clock.now_ms()
    with redis.Redis.from_url(redis_url) as client:
        client.set(lead, f"{moment}-one")
        call = Call("whole")
        follower = asyncio.create_task(second.ask("a", call))
        for holder in ("two", "three"):
            await asyncio.sleep(0.4)  # the follower looks every 0.25 s
            assert call.begun == 0
            client.set(lead, f"{moment}-{holder}")
        assert await follower == ("whole", "miss")
        assert client.get(lead) == f"{moment}-three".encode()


async def test_when_redis_is_killed_while_a_node_waits_it_calls_by_itself(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as first, cache_node(own_valkey.url) as second:
        held, own = Call("first", go=False), Call("second")
        leader = asyncio.create_task(first.ask("a", held))
        await eventually(lambda: held.begun == 1)
        follower = asyncio.create_task(second.ask("a", own))
        await eventually(lambda: len(second.flights._tasks) == 1)
        await own_valkey.kill()
        assert await follower == ("second", "miss")
        held.go.set()
        assert await leader == ("first", "miss")
        assert await first.ask("a", Call()) == ("first", "hit")
        assert await second.ask("a", Call()) == ("second", "hit")


async def test_a_redis_that_freezes_under_a_call_delays_its_answer_by_nothing(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        held = Call("whole", go=False)
        async with node.open("a", held) as reader:
            await eventually(lambda: held.begun == 1)
            own_valkey.freeze()
            try:
                started = time.monotonic()
                held.go.set()
                assert await reader.final() == "whole"
                assert time.monotonic() - started < 0.1
                assert await node.ask("a", Call()) == ("whole", "hit")
                assert await node.ask("b", Call("other")) == ("other", "miss")
                assert time.monotonic() - started < 2
            finally:
                own_valkey.thaw()


async def test_a_cluster_is_a_cache_too(redis_cluster: Cluster) -> None:
    key = f"cluster-{time.time_ns()}"
    async with cache_node(redis_cluster.url) as first, cache_node(redis_cluster.url) as second:
        call = Call("whole")
        answers = await asyncio.gather(*(node.ask(key, call) for node in (first, second) for _ in range(5)))
        assert call.begun == 1
        assert {text for text, _ in answers} == {"whole"}
        flushed = await first.flushes.flush("sound")
        second.flushes.heard("sound", flushed.before_ms)
        assert await second.ask(key, Call("new")) == ("new", "miss")


async def test_no_name_in_redis_tells_what_was_asked(first: CacheNode, redis_url: str) -> None:
    await first.manager.cache_agent_response("sound", "my secret illness", "gpt-4", "an answer")
    await first.ask("my secret illness", Call())
    await eventually(lambda: len(stored(redis_url)) == 2)
    names = stored(redis_url)
    assert all(len(name.rpartition(":")[2]) == 64 and "secret" not in name for name in names)
