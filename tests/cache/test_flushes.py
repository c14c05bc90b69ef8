"""Flushes: whatever began before one is a miss, on every node, also on one that did not hear of it."""

import asyncio

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import given

from service.cache import flushes as flushing
from service.cache.clock import SharedClock
from service.cache.flushes import Flushes, FlushLog, MemoryFlushLog
from service.state.failover import Failover
from tests.cache.nodes import CacheNode, Call, cache_node
from tests.servers import OwnValkey
from tests.waiting import eventually


async def test_what_was_cached_before_a_flush_is_a_miss_at_once_and_what_comes_after_is_not(alone: CacheNode) -> None:
    await alone.ask("a", Call("old"))
    flushed = await alone.flushes.flush("sound")
    assert flushed.degraded
    assert await alone.ask("a", Call("new")) == ("new", "miss")
    assert await alone.ask("a", Call()) == ("new", "hit")


async def test_a_flush_of_one_agent_leaves_the_others_and_one_of_all_does_not(alone: CacheNode) -> None:
    await alone.ask("a", Call("of sound"))
    await alone.ask("b", Call("of coding"), groups=("coding",))
    await alone.ask("c", Call("of both"), groups=("coding", "sound"))
    await alone.flushes.flush("sound")
    asked = [await alone.ask(key, Call("new"), write=True) for key in "abc"]
    assert [source for _, source in asked] == ["miss", "hit", "miss"]
    await alone.flushes.flush(None)
    assert await alone.ask("b", Call("new")) == ("new", "miss")


async def test_an_entry_in_redis_that_was_flushed_is_a_miss(first: CacheNode, second: CacheNode) -> None:
    await first.ask("a", Call("old"))
    await second.ask("b", Call("old"))
    flushed = await second.flushes.flush("sound")
    assert not flushed.degraded
    assert await second.ask("a", Call("new")) == ("new", "miss")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "LOOK_EVERY_S", 0.1)


@pytest.mark.usefixtures("often")
async def test_a_node_that_heard_of_a_flush_from_nobody_reads_of_it(redis_url: str) -> None:
    async with cache_node(redis_url) as first, cache_node(redis_url) as second:
        await first.ask("a", Call("old"))
        assert await second.ask("a", Call()) == ("old", "hit")
        moment = (await first.flushes.flush("sound")).before_ms
        await eventually(lambda: second.flushes.covers(("sound",), moment), 1.0)
        assert await second.ask("a", Call("new")) == ("new", "miss")


async def test_a_node_that_begins_after_a_flush_knows_of_it(first: CacheNode, redis_url: str) -> None:
    moment = (await first.flushes.flush(None)).before_ms
    async with cache_node(redis_url) as later:
        await eventually(lambda: later.flushes.covers((), moment), 1.0)


async def test_an_answer_that_was_begun_before_a_flush_is_not_kept_and_not_joined(alone: CacheNode) -> None:
    old, new = Call("old", go=False), Call("new")
    async with alone.open("a", old) as before:
        await eventually(lambda: old.begun == 1)
        await alone.flushes.flush("sound")
        assert await alone.ask("a", new) == ("new", "miss")
        old.go.set()
        assert await before.final() == "old"
    await eventually(lambda: not alone.flights._tasks)
    assert await alone.ask("a", Call()) == ("new", "hit")


async def test_after_a_flush_nobody_waits_for_another_nodes_older_call(first: CacheNode, second: CacheNode) -> None:
    old = Call("old", go=False)
    async with first.open("a", old):
        await eventually(lambda: old.begun == 1)
        await second.flushes.flush("sound")
        async with asyncio.timeout(1):
            assert await second.ask("a", Call("new")) == ("new", "miss")
        old.go.set()
    await eventually(lambda: not first.flights._tasks)
    second.forget_near("a")
    assert (await second.ask("a", Call("newer")))[0] in ("new", "newer")


async def test_a_flush_said_while_redis_is_away_reaches_the_others_when_it_is_back(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as first, cache_node(own_valkey.url) as second:
        await first.ask("a", Call("old"))
        assert await second.ask("a", Call()) == ("old", "hit")
        await own_valkey.kill()
        flushed = await first.flushes.flush("sound")
        assert flushed.degraded
        assert await first.ask("a", Call("new")) == ("new", "miss")
        assert await second.ask("a", Call()) == ("old", "hit")
        await own_valkey.restart()
        await eventually(lambda: second.flushes.covers(("sound",), flushed.before_ms), 12)
        assert (await second.ask("a", Call("newer")))[0] in ("new", "newer")


async def test_moments_that_redis_has_lost_are_told_again(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        moment = (await node.flushes.flush("sound")).before_ms
        with redis.Redis.from_url(own_valkey.url) as client:
            client.flushall()
            await node.flushes.recovered()
            assert client.hgetall("atp:cache:flushes") == {b"sound": str(moment).encode()}


async def test_moments_never_fall_and_foreign_fields_do_not_hide_the_others(first: CacheNode, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("atp:cache:flushes", mapping={"foreign": "soon", "\xff": "x", "*": "1000"})
        await first.flushes.recovered()
        assert first.flushes.covers((), 1000)
        assert not first.flushes.covers((), 1001)
        first.flushes.heard(None, 900)
        assert first.flushes.covers((), 1000)


async def test_flushes_in_one_instant_are_one_after_the_other(first: CacheNode, alone: CacheNode) -> None:
    for node in (first, alone):
        moments = [(await node.flushes.flush(group)).before_ms for group in ("sound", "sound", None, "coding")]
        assert moments == sorted(set(moments))
        begun_ms = node.cache.clock.now_ms()
        assert begun_ms > moments[-1]
        assert not node.flushes.covers(("sound", "coding"), begun_ms)


def flushes(now_s: float = 1000.0) -> Flushes:
    clock = SharedClock(wall=lambda: now_s, monotonic=lambda: now_s)
    return Flushes(Failover[FlushLog](None, None, MemoryFlushLog(clock)), clock)


def test_a_moment_far_ahead_does_not_switch_the_cache_off() -> None:
    heard = flushes(1000.0)
    heard.heard("sound", 99_999_999)
    assert heard.covers(("sound",), 1_001_000)
    assert not heard.covers(("sound",), 1_001_001)


def test_more_groups_than_there_can_be_are_taken_together() -> None:
    heard = flushes()
    for number in range(1001):
        heard.heard(f"group-{number}", 500_000 + number)
    assert len(heard._moments) == 1
    assert heard.covers(("another",), 501_000)
    assert not heard.covers(("another",), 501_001)


@given(st.lists(st.tuples(st.sampled_from([None, "sound", "coding"]), st.integers(1, 999_000))))
def test_moments_heard_in_any_order_and_twice_are_the_highest_of_each(heard: list[tuple[str | None, int]]) -> None:
    one, other = flushes(), flushes()
    for group, moment in heard:
        one.heard(group, moment)
    for group, moment in [*reversed(heard), *heard]:
        other.heard(group, moment)
    assert one._moments == other._moments


async def test_nodes_compare_moments_by_the_clock_of_redis_whatever_their_own_say(redis_url: str) -> None:
    async with cache_node(redis_url) as ahead, cache_node(redis_url) as behind:
        ahead.cache.clock.measured(ahead.cache.clock.now_ms() + 3_600_000)
        behind.cache.clock.measured(behind.cache.clock.now_ms() - 3_600_000)
        await ahead.flushes.recovered()
        await behind.flushes.recovered()
        assert abs(ahead.cache.clock.now_ms() - behind.cache.clock.now_ms()) < 50
        await ahead.ask("a", Call("old"))
        await behind.flushes.flush(None)
        assert await behind.ask("a", Call("new")) == ("new", "miss")


def test_a_jump_of_the_wall_clock_moves_no_moment() -> None:
    wall, monotonic = [1000.0], [50.0]
    clock = SharedClock(wall=lambda: wall[0], monotonic=lambda: monotonic[0])
    wall[0], monotonic[0] = 4600.0, 51.0
    assert clock.now_ms() == 1_001_000
    clock.measured(2_000_000)
    monotonic[0] = 52.5
    assert clock.now_ms() == 2_001_500
