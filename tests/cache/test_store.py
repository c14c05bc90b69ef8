"""Where entries lie: one contract over memory, Redis, and a Redis that is killed or frozen."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from service.cache.clock import SharedClock
from service.cache.entry import CacheStore, Entry, digest, name_of
from service.cache.leads import lead_of
from service.cache.memory import MemoryCache
from service.cache.redis import RedisCache
from service.settings import load
from service.state.pipeline import Pipeline
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.cache.nodes import CacheNode, cache_node, stored
from tests.servers import OwnValkey
from tests.waiting import eventually

A, B, C = (name_of("query", digest(text)) for text in "abc")


def entry(value: bytes, ttl_s: float = 60.0, **changes: Any) -> Entry:
    now_ms = int(time.time() * 1000)
    return Entry(value, ttl_s, **{"begun_ms": now_ms, "stored_ms": now_ms, "groups": ("sound", "coding")} | changes)


async def keeps_the_contract(store: CacheStore) -> None:
    one, other = entry(b"one"), entry(b"", groups=())
    assert await store.get(A) is None
    await store.put(A, one)
    await store.put(A, one)
    await store.put(B, other)
    assert (await store.get(A), await store.get(B)) == (one, other)
    await store.put(A, other)
    assert await store.get(A) == other
    await store.put(B, entry(b"brief", ttl_s=0.02))
    await eventually(lambda: gone(store))
    assert await store.get_or_lead(C, "1-a") is True
    await store.put_and_release(C, one, "1-a")
    assert await store.get_or_lead(C, "1-b") == one


async def gone(store: CacheStore) -> bool:
    return await store.get(B) is None


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[RedisCache]:
    state = RedisState(load(redis_url=redis_url), Metrics())
    pipeline = Pipeline(state, "cache")
    yield RedisCache(pipeline, SharedClock())
    await pipeline.close()
    await state.close()


async def test_memory_keeps_the_contract() -> None:
    await keeps_the_contract(MemoryCache(10_000, SharedClock(), Metrics().cache_evictions))


async def test_redis_keeps_the_contract(shared: RedisCache) -> None:
    await keeps_the_contract(shared)


async def test_one_leads_until_it_has_stored_what_its_call_gave(shared: RedisCache, redis_url: str) -> None:
    one, other = entry(b"one"), entry(b"other")
    assert [await shared.get_or_lead(A, token) for token in ("1-a", "1-b")] == [True, False]
    await shared.put_and_release(A, other, "1-b")  # it called by itself: the lead is not its own
    with redis.Redis.from_url(redis_url) as client:
        assert client.get(lead_of(A)) == b"1-a"
        assert 9_000 < client.pttl(lead_of(A)) <= 10_000
        await shared.put_and_release(A, one, "1-a")
        assert client.exists(lead_of(A)) == 0
        assert 59_000 < client.pttl(A) <= 60_000
    assert await shared.get_or_lead(A, "1-b") == one


async def test_for_what_is_torn_no_lead_is_asked(shared: RedisCache, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(A, b"torn")
        assert await shared.get_or_lead(A, "1-a") is False
        assert client.exists(lead_of(A)) == 0


async def test_a_lead_whose_end_redis_did_not_hear_of_is_not_released(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        assert await node.cache.get_or_lead(A, "1-a") is True
        assert await node.cache.put_and_release(A, entry(b"one"), "1-a") is True
        await own_valkey.kill()
        assert await node.cache.put_and_release(A, entry(b"two"), "1-a") is False
        assert await node.cache.put_and_release(A, entry(b"x" * 2_000_000), "1-a") is False


async def test_the_whole_cache_keeps_the_contract(first: CacheNode) -> None:
    await keeps_the_contract(first.cache)  # type: ignore[arg-type]  # its put says whether it was kept


async def test_a_cache_whose_redis_is_killed_keeps_the_contract(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        await node.cache.put(B, entry(b"before"))
        await own_valkey.kill()
        value = await node.cache.get(B)
        assert value
        assert value.value == b"before"
        node.cache.drop_near(B)
        await keeps_the_contract(node.cache)  # type: ignore[arg-type]


async def test_a_frozen_redis_holds_a_look_up_no_longer_than_its_timeout(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        await node.cache.put(B, entry(b"warm"))
        own_valkey.freeze()
        try:
            started = time.monotonic()
            assert await node.cache.get(A) is None
            assert time.monotonic() - started < 1
            await eventually(lambda: node.cache._stores.degraded)
            started = time.monotonic()
            await keeps_the_contract(node.cache)  # type: ignore[arg-type]
            assert time.monotonic() - started < 0.2
        finally:
            own_valkey.thaw()


async def test_after_an_outage_redis_is_used_again(own_valkey: OwnValkey) -> None:
    async with cache_node(own_valkey.url) as node:
        await own_valkey.kill()
        await node.cache.put(A, entry(b"while away"))
        await own_valkey.restart()
        await eventually(lambda: not node.cache._stores.degraded, 10)
        await node.cache.put(B, entry(b"back"))
        assert stored(own_valkey.url, "query") == [B]
        found = await node.cache.get(A)
        assert found
        assert found.value == b"while away"


async def test_what_is_in_memory_costs_no_round_trip(first: CacheNode, second: CacheNode, redis_url: str) -> None:
    await first.cache.put(A, entry(b"one"))
    assert second.cache.get_near(A) is None
    assert await second.cache.get(A) is not None
    with redis.Redis.from_url(redis_url) as client:
        client.delete(A)
    for node in (first, second):
        near = node.cache.get_near(A)
        assert near
        assert near.value == b"one"


async def test_memory_believes_an_entry_only_for_what_is_left_of_its_time() -> None:
    now = [1000.0]
    clock = SharedClock(wall=lambda: now[0], monotonic=lambda: now[0])
    memory = MemoryCache(10_000, clock, Metrics().cache_evictions)
    memory.keep(A, Entry(b"one", 60.0, begun_ms=950_000, stored_ms=955_000))  # 45 s old
    now[0] = 1014.9
    assert memory.look(A) is not None
    now[0] = 1015.0
    assert memory.look(A) is None
    assert (memory.used_bytes, len(memory)) == (0, 0)
    memory.keep(A, Entry(b"one", 60.0, begun_ms=950_000, stored_ms=955_000))
    assert memory.look(A) is None


@pytest.mark.parametrize("left", [b"", b"torn", b"\x80\x04}\x94."], ids=["empty", "foreign", "pickle"])
async def test_what_is_no_entry_is_a_miss_that_is_logged_once(
    shared: RedisCache, redis_url: str, left: bytes, said: list[str]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(A, left)
    assert [await shared.get(A) for _ in range(3)] == [None, None, None]
    assert said == ["cache.torn"]


async def test_an_entry_copied_under_another_name_is_a_miss(shared: RedisCache, redis_url: str) -> None:
    await shared.put(A, entry(b"of a"))
    with redis.Redis.from_url(redis_url) as client:
        client.copy(A, B)
    assert await shared.get(B) is None


async def test_a_key_of_a_foreign_type_is_a_miss_and_no_outage(first: CacheNode, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset(A, "field", "value")
    assert await first.cache.get(A) is None
    await first.cache.put(B, entry(b"other"))
    assert stored(redis_url, "query") == [A, B]


async def test_concurrent_writers_and_readers_see_whole_values(first: CacheNode, second: CacheNode) -> None:
    values = {bytes([letter]) * 100_000 for letter in b"abcd"}

    async def write(node: CacheNode, value: bytes) -> None:
        for _ in range(5):
            await node.cache.put(A, entry(value))

    async def read(node: CacheNode) -> None:
        for _ in range(20):
            node.cache.drop_near(A)
            found = await node.cache.get(A)
            assert found is None or found.value in values

    writers = [write(node, value) for node in (first, second) for value in values]
    await asyncio.gather(*writers, read(first), read(second))
