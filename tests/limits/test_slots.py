"""Slots of streams: held, given back, lost with their node, and counted alone while Redis is away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import redis

from service.background import end
from service.errors import TooMany
from service.limits.slot_store import RedisSlots
from service.limits.slots import Slots
from service.state.breaker import Breaker
from tests.limits.stores import LimiterNodes
from tests.servers import OwnValkey
from tests.waiting import eventually


@dataclass(frozen=True)
class Key:
    key_hash: bytes
    limits: Mapping[str, str] = field(default_factory=dict)


ANA, BEN = Key(b"a" * 32), Key(b"b" * 32)
ANAS = "atp:streams:{" + "61" * 16 + "}"


class SlotNodes:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack, self._nodes = stack, LimiterNodes(stack)
        self.breakers: list[Breaker] = []

    def start(self, url: str, limit: int = 2, nodes: int = 1, lease_s: float = 30.0, every_s: float = 10.0) -> Slots:
        node = self._nodes.start(url)
        shared = RedisSlots(node.redis, lease_s) if node.redis else None
        slots = Slots(limit, shared, node.breaker, lambda: nodes, every_s)
        if node.breaker:
            node.breaker.on_recovery(slots.renew)
            self.breakers.append(node.breaker)
        self._stack.push_async_callback(end, asyncio.create_task(slots.run()))
        return slots


@pytest.fixture
async def nodes() -> AsyncIterator[SlotNodes]:
    async with AsyncExitStack() as stack:
        yield SlotNodes(stack)


async def hold(stack: AsyncExitStack, slots: Slots, key: Key = ANA, count: int = 1) -> None:
    for _ in range(count):
        await stack.enter_async_context(slots.held(key))


async def full(slots: Slots, key: Key = ANA) -> bool:
    try:
        async with slots.held(key):
            return False
    except TooMany:
        return True


async def test_a_key_holds_as_many_as_it_may_on_all_nodes_together(nodes: SlotNodes, redis_url: str) -> None:
    one, two = nodes.start(redis_url), nodes.start(redis_url)
    async with AsyncExitStack() as streams:
        await hold(streams, one)
        await hold(streams, two)
        with pytest.raises(TooMany) as refusal:
            await hold(streams, one)
        error = refusal.value
        assert (error.status, error.retry_after_s, error.extra) == (429, 1.0, {"policy": "streams", "limit": 2})
        assert not await full(one, BEN)
    assert (len(one), len(two)) == (0, 0)

    async def free() -> bool:
        return not await full(two)

    await eventually(free)


async def stream(slots: Slots, begun: asyncio.Event, fails: asyncio.Event) -> None:
    async with slots.held(ANA):
        begun.set()
        await fails.wait()
        raise ConnectionError


@dataclass(frozen=True)
class Place:
    """Where slots are counted; `killed` is the Redis that goes away in the middle."""

    url: str = ""
    killed: OwnValkey | None = None


@pytest.fixture(params=["memory", "redis", "redis killed"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "redis killed":
        own: OwnValkey = request.getfixturevalue("own_valkey")
        return Place(own.url, own)
    return Place(request.getfixturevalue("redis_url")) if request.param == "redis" else Place()


@pytest.mark.parametrize("end_of", ["cancelled", "failed"])
async def test_a_slot_is_held_while_its_stream_lasts_and_free_however_that_ends(
    nodes: SlotNodes, place: Place, end_of: str
) -> None:
    slots, begun, fails = nodes.start(place.url, limit=1), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(stream(slots, begun, fails))
    await begun.wait()
    if place.killed:
        await place.killed.kill()
    for _ in range(20):
        assert await full(slots)
    if end_of == "cancelled":
        task.cancel()
    else:
        fails.set()
    await asyncio.wait([task])
    await eventually(lambda: is_free(slots))
    assert len(slots) == 0


async def is_free(slots: Slots) -> bool:
    return not await full(slots)


async def takes(streams: AsyncExitStack, slots: Slots) -> bool:
    try:
        await hold(streams, slots)
    except TooMany:
        return False
    return True


async def stays_full(slots: Slots, for_s: float) -> None:
    ends_at = asyncio.get_running_loop().time() + for_s
    while asyncio.get_running_loop().time() < ends_at:
        assert await full(slots)
        await asyncio.sleep(0.05)


async def test_a_slot_that_was_given_back_leaves_nothing_in_redis(nodes: SlotNodes, redis_url: str) -> None:
    slots = nodes.start(redis_url, limit=1)
    async with slots.held(ANA):
        pass
    with redis.Redis.from_url(redis_url) as client:
        await eventually(lambda: not client.exists(ANAS))


async def test_slots_are_renewed_although_other_streams_end_without_a_pause(nodes: SlotNodes, redis_url: str) -> None:
    busy, other = nodes.start(redis_url, limit=1000, lease_s=0.4, every_s=0.1), nodes.start(redis_url, limit=1)

    enough = asyncio.Event()

    async def end_streams() -> None:
        while not enough.is_set():
            async with busy.held(BEN):
                pass

    async with busy.held(ANA):
        others = asyncio.gather(*(end_streams() for _ in range(40)))
        await stays_full(other, 1.0)  # more than two leases
        enough.set()
        await others


async def test_slots_that_redis_has_lost_are_held_again_by_the_next_renewal(nodes: SlotNodes, redis_url: str) -> None:
    slots = nodes.start(redis_url, every_s=0.1)
    with redis.Redis.from_url(redis_url) as client:
        async with slots.held(ANA), slots.held(ANA):
            client.flushall()
            await eventually(lambda: client.zcard(ANAS) == 2)


async def test_after_an_outage_the_slot_of_a_stream_that_lives_is_held_and_that_of_one_that_ended_is_free(
    nodes: SlotNodes, own_valkey: OwnValkey
) -> None:
    slots, other = nodes.start(own_valkey.url, lease_s=0.5, every_s=0.1), nodes.start(own_valkey.url)
    async with slots.held(ANA):
        async with slots.held(ANA):
            assert await full(other)
            await own_valkey.kill()
            await eventually(lambda: not any(breaker.closed for breaker in nodes.breakers))
        await own_valkey.restart()
        await eventually(lambda: all(breaker.closed for breaker in nodes.breakers), within_s=6)
        async with AsyncExitStack() as streams:
            await eventually(lambda: takes(streams, other))
            await stays_full(other, 1.0)  # two leases


async def test_the_slots_of_a_dead_node_are_free_when_their_lease_ends(nodes: SlotNodes, redis_url: str) -> None:
    alive, dead = nodes.start(redis_url, limit=1), nodes.start(redis_url, limit=1, lease_s=0.3, every_s=60)
    async with dead.held(ANA):
        assert await full(alive)

        async def free() -> bool:
            return not await full(alive)

        assert await eventually(free) > 0.1


async def test_a_held_slot_outlives_its_lease(nodes: SlotNodes, redis_url: str) -> None:
    slots = nodes.start(redis_url, limit=1, lease_s=0.4, every_s=0.1)
    async with slots.held(ANA):
        await stays_full(slots, 1.0)


async def test_while_redis_is_away_a_node_counts_alone_with_its_part(nodes: SlotNodes, own_valkey: OwnValkey) -> None:
    slots = nodes.start(own_valkey.url, limit=5, nodes=2)
    async with AsyncExitStack() as streams:
        await hold(streams, slots, count=2)
        await own_valkey.kill()
        await hold(streams, slots)
        assert await full(slots)  # 3 of 5 is one of two nodes' part
        await own_valkey.restart()
        with redis.Redis.from_url(own_valkey.url) as client:
            client.flushall()

            async def told() -> bool:
                return bool(client.zcard(ANAS) == 3)

            await eventually(told, within_s=6)


async def test_without_redis_a_node_counts_alone(nodes: SlotNodes) -> None:
    slots = nodes.start("")
    async with AsyncExitStack() as streams:
        await hold(streams, slots, count=2)
        assert await full(slots)
    assert not await full(slots)


async def test_a_closing_node_gives_all_back(nodes: SlotNodes, redis_url: str) -> None:
    slots = nodes.start(redis_url)
    async with slots.held(ANA):
        await slots.close()
        with redis.Redis.from_url(redis_url) as client:
            assert client.zcard(ANAS) == 0
