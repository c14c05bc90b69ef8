"""The audit: what the counters say against what they count."""

import asyncio

import pytest
import redis

from service.presence import tracker as tracking
from tests.presence.nodes import Given, Nodes
from tests.waiting import eventually

COUNTERS = "atp:{presence:0}:c"


class Drift(list[float]):
    def __call__(self, drift: float) -> None:
        self.append(drift)


@pytest.mark.parametrize("shards", [1, 16])
async def test_a_fleet_in_order_has_no_drift(redis_url: str, nodes: Nodes, shards: int) -> None:
    drift = Drift()
    one = await nodes.start(redis_url, Given(shards, beat=False, watch=False, drift=drift))
    two = await nodes.start(redis_url, Given(shards, beat=False, watch=False))
    for number in range(30):
        await (one if number % 2 else two).add_user(f"user-{number % 20}", f"s{number}", "c", "tablet")
        await one.heartbeat(f"user-{number}", "r", "c", "mobile")
    await two.close()
    assert [await one.audit() for _ in range(3)] == [0, 0, 0]
    assert drift == [0, 0, 0]


@pytest.mark.parametrize(
    ("field", "step", "drift"),
    [("mobile", 2, 2), ("users", -1, 1), ("users", 5, 5), ("rest:mobile", 3, 3)],
)
async def test_a_counter_that_somebody_moved_is_seen(
    redis_url: str, nodes: Nodes, field: str, step: int, drift: int
) -> None:
    told = Drift()
    node = await nodes.start(redis_url, Given(beat=False, watch=False, drift=told))
    for number in range(5):
        await node.add_user(f"user-{number}", f"s{number}", "c", "mobile")
        await node.heartbeat(f"user-{number}", "r", "c", "mobile")
    with redis.Redis.from_url(redis_url) as client:
        client.hincrby(COUNTERS, field, step)
    assert await node.audit() == drift
    assert told == [drift]


async def test_drift_on_any_shard_is_seen(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(16, beat=False, watch=False))
    with redis.Redis.from_url(redis_url) as client:
        client.hincrby("atp:{presence:11}:c", "desktop", 1)
        client.hincrby("atp:{presence:7}:c", "tablet", -1)
    assert await node.audit() == 2


async def test_a_session_of_its_own_that_redis_lost_counts_when_seen_twice(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(beat=False, watch=False))
    await node.add_user("ana", "s1", "c", "mobile")
    await node.add_user("bob", "s2", "c", "mobile")
    with redis.Redis.from_url(redis_url) as client:
        [own] = client.keys("atp:{presence:0}:o:*")
        client.hdel(own, "s1")
        client.hincrby(COUNTERS, "mobile", -1)
    assert [await node.audit() for _ in range(2)] == [0, 1]


async def test_joins_and_leaves_during_audits_are_no_drift(redis_url: str, nodes: Nodes) -> None:
    busy = await nodes.start(redis_url, Given(4, beat=False, watch=False))
    watching = await nodes.start(redis_url, Given(4, beat=False, watch=False))

    async def churn(name: str) -> None:
        for turn in range(40):
            await busy.add_user(name, f"{name}-{turn}", "c", "mobile")
            await busy.heartbeat(name, "r", "c", "mobile")
            await busy.remove_user(f"{name}-{turn}")
        await busy.begin()

    async def audits() -> set[int]:
        return {await (busy if turn % 2 else watching).audit() for turn in range(30)}

    found, *_ = await asyncio.gather(audits(), *(churn(f"user-{number}") for number in range(8)))
    assert found == {0}


async def test_each_audit_of_the_beat_tells_what_it_found(
    redis_url: str, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "BEAT_S", 0.02)
    monkeypatch.setattr(tracking, "AUDIT_EVERY_S", 0.04)
    shown = list[float]()
    await nodes.start(redis_url, Given(drift=shown.append))
    with redis.Redis.from_url(redis_url) as client:
        client.hincrby(COUNTERS, "mobile", 4)
    await eventually(lambda: shown[-1:] == [4])
    with redis.Redis.from_url(redis_url) as client:
        client.hincrby(COUNTERS, "mobile", -4)
    await eventually(lambda: shown[-1] == 0)


async def test_a_node_without_redis_has_nothing_to_audit(nodes: Nodes) -> None:
    assert await (await nodes.start()).audit() == 0
