"""Presence: the same contract over memory, Redis and Redis Cluster; nodes that die, Redis that forgets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis

from service.background import end
from service.errors import Invalid
from service.presence import tracker as tracking
from service.presence.memory import MemoryPresence
from service.presence.redis import RedisPresence
from service.presence.sessions import Presence
from service.presence.tracker import Tracker
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.redis_topologies import Cluster
from tests.servers import OwnValkey
from tests.waiting import eventually

NoDevices = {"mobile": 0, "tablet": 0, "desktop": 0, "unknown": 0}


class Nodes:
    """Trackers as separate nodes would have them; `kill` stops one's beat as a dead process would."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._beats: dict[Tracker, asyncio.Task[None]] = {}

    async def start(self, url: str = "", shards: int = 1, beat: bool = True, **more: Any) -> Tracker:
        memory = MemoryPresence(UTC)
        if not url:
            return Tracker(Failover[Presence](None, None, memory), memory)
        metrics = Metrics()
        state = RedisState(load(redis_url=url, **more), metrics)
        self._stack.push_async_callback(state.close)
        degraded = metrics.degraded.labels("redis", "memory")
        breaker = Breaker(state.ping, metrics.dependency_up.labels("redis"), degraded)
        fleet = RedisPresence(state, UTC, shards)
        node = Tracker(Failover[Presence](breaker, fleet, memory), memory, fleet)
        breaker.on_recovery(node.begin)
        await node.begin()
        self._stack.push_async_callback(end, asyncio.create_task(breaker.run()))
        if beat:
            self._beats[node] = asyncio.create_task(node.run())
            self._stack.push_async_callback(end, self._beats[node])
        return node

    async def kill(self, node: Tracker) -> None:
        await end(self._beats[node])


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(stack)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a tenth of the real length, so that a test of death takes a second; the proportions stay."""
    monkeypatch.setattr("service.presence.redis.LEASE_MS", 1000)
    monkeypatch.setattr(tracking, "BEAT_S", 0.3)


async def online(node: Tracker) -> int:
    users: int = (await node.get_stats())["online_users"]
    return users


async def keeps_the_contract(node: Tracker) -> None:
    await node.add_user(user_id="ana", session_id="s1", client_id="c1", device_type="mobile")
    await node.add_user(user_id="ana", session_id="s2", client_id="c2", device_type="desktop")
    await node.add_user(user_id="bob", session_id="s3", client_id="c3", device_type="teapot")
    await node.add_user(user_id="bob", session_id="s3", client_id="c3", device_type="teapot")
    stats = await node.get_stats()
    assert stats["online_users"] == 2
    assert stats["sessions"] == 3
    assert stats["devices"] == {"mobile": 1, "tablet": 0, "desktop": 1, "unknown": 1}
    assert stats["active_users"] == {"day": 2, "week": 2, "month": 2}
    assert stats["nodes"] == 1
    assert stats["degraded"] is False
    await node.remove_user("s1")
    await node.remove_user("s1")
    await node.remove_user("s3")
    stats = await node.get_stats()
    assert (stats["online_users"], stats["sessions"]) == (1, 1)
    await node.remove_user("s2")
    stats = await node.get_stats()
    assert (stats["online_users"], stats["devices"]) == (0, NoDevices)


async def test_memory_keeps_the_contract(nodes: Nodes) -> None:
    node = await nodes.start()
    await keeps_the_contract(node)
    assert (await node.get_stats())["peak"]["all_time"]["users"] == 2


@pytest.mark.parametrize("shards", [1, 16])
async def test_redis_keeps_the_contract(redis_url: str, nodes: Nodes, shards: int) -> None:
    await keeps_the_contract(await nodes.start(redis_url, shards))


async def test_a_cluster_keeps_the_contract(redis_cluster: Cluster, nodes: Nodes) -> None:
    await keeps_the_contract(await nodes.start(redis_cluster.url, 16, redis_request_timeout=2))


async def test_peaks_are_kept_with_their_time(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url)
    for number in range(5):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    for number in range(5):
        await node.remove_user(f"s{number}")
    peaks = (await node.get_stats())["peak"]
    assert peaks["today"]["users"] == peaks["all_time"]["users"] == 5
    assert peaks["today"]["at"].startswith(time.strftime("%Y-%m-%d", time.gmtime()))


async def test_the_day_of_a_peak_is_the_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]  # 2023-11-14 22:13:20 UTC, 23:13 in Madrid
    presence = MemoryPresence(ZoneInfo("Europe/Madrid"), lambda: now[0])
    node = Tracker(Failover[Presence](None, None, presence), presence)
    for number in range(3):
        await node.add_user(f"u{number}", f"s{number}", "c")
    await node.remove_user("s0")
    assert (await node.get_stats())["peak"]["today"]["users"] == 3
    now[0] += 3600  # past midnight in Madrid, not in UTC
    assert (await node.get_stats())["peak"]["today"]["users"] == 2
    assert (await node.get_stats())["peak"]["all_time"]["users"] == 3


async def test_two_nodes_see_one_fleet_and_a_user_on_both_is_one(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    await one.add_user("ana", "s1", "c", "mobile")
    await two.add_user("ana", "s2", "c", "desktop")
    await two.add_user("bob", "s3", "c")
    for node in (one, two):
        stats = await node.get_stats()
        assert (stats["online_users"], stats["sessions"], stats["nodes"]) == (2, 3, 2)


@pytest.mark.usefixtures("quick")
async def test_a_dead_nodes_users_leave_the_count_and_the_survivors_stay(redis_url: str, nodes: Nodes) -> None:
    survivor, dying = await nodes.start(redis_url), await nodes.start(redis_url)
    await survivor.add_user("ana", "s1", "c")
    for number in range(500):
        await dying.add_user(f"user-{number}", f"t{number}", "c")
    assert await online(survivor) == 501
    await nodes.kill(dying)

    async def alone() -> bool:
        return await online(survivor) == 1

    assert await eventually(alone) < 1.5 + 0.5  # of 15 s, in tenths, and the work
    assert (await survivor.get_stats())["nodes"] == 1


async def test_a_node_that_stops_in_order_leaves_at_once(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    await one.add_user("ana", "s1", "c")
    await two.add_user("bob", "s2", "c")
    await two.close()
    stats = await one.get_stats()
    assert (stats["online_users"], stats["sessions"], stats["nodes"]) == (1, 1, 1)


@pytest.mark.usefixtures("quick")
async def test_after_a_flush_the_count_is_exact_again(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    for number in range(300):
        await (one if number % 2 else two).add_user(f"user-{number % 200}", f"s{number}", "c", "tablet")
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    async def exact() -> bool:
        stats = await one.get_stats()
        return (stats["online_users"], stats["devices"]["tablet"], stats["nodes"]) == (200, 300, 2)

    assert await eventually(exact) < 1.0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_an_outage_shows_this_nodes_users_and_then_the_exact_fleet(
    own_valkey: OwnValkey, nodes: Nodes, fault: str
) -> None:
    one, two = await nodes.start(own_valkey.url), await nodes.start(own_valkey.url)
    await one.add_user("ana", "s1", "c", "mobile")
    await two.add_user("bob", "s2", "c", "mobile")
    await (own_valkey.kill() if fault == "killed" else freeze(own_valkey))
    await one.add_user("eve", "s3", "c", "desktop")
    await one.remove_user("s1")
    stats = await one.get_stats()
    assert (stats["online_users"], stats["devices"]["desktop"]) == (1, 1)
    await eventually(lambda: is_degraded(one))
    await (own_valkey.restart() if fault == "killed" else thaw(own_valkey))

    async def exact() -> bool:
        stats = await two.get_stats()
        found = (stats["online_users"], stats["devices"]["mobile"], stats["devices"]["desktop"], stats["degraded"])
        return found == (2, 1, 1, False)

    assert await eventually(exact, within_s=10) < 10


async def is_degraded(node: Tracker) -> bool:
    return (await node.get_stats())["degraded"] is True


async def freeze(server: OwnValkey) -> None:
    server.freeze()


async def thaw(server: OwnValkey) -> None:
    server.thaw()


async def test_an_idle_fleet_of_sessions_sends_redis_nothing_for_them(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, beat=False)
    for number in range(1000):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_commands_processed"]
        await asyncio.sleep(1.0)
        sent = client.info("stats")["total_commands_processed"] - before
    assert sent < 10  # the breaker's pings, and this question


async def test_reading_the_counts_never_scans(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, beat=False)
    calls: list[float] = []
    for size in (10, 2000):
        for number in range(size):
            await node.add_user(f"user-{number}", f"s{size}-{number}", "c")
        started = time.perf_counter()
        for _ in range(20):
            await node.get_stats()
        calls.append(time.perf_counter() - started)
    with redis.Redis.from_url(redis_url) as client:
        assert not {"cmdstat_hscan", "cmdstat_scan", "cmdstat_keys"} & set(client.info("commandstats"))


@pytest.mark.parametrize("bad", ["", "x" * 129, "a\x1fb", "a\nb"])
async def test_a_hostile_id_is_refused(nodes: Nodes, bad: str) -> None:
    node = await nodes.start()
    with pytest.raises(Invalid, match="user_id must be 1 to 128 printable characters"):
        await node.add_user(bad, "s", "c")


async def test_joins_and_leaves_during_a_new_incarnation_are_counted_right(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, beat=False)
    for number in range(400):
        await node.add_user(f"user-{number}", f"s{number}", "c")

    async def churn(change: Callable[[int], Any]) -> None:
        for number in range(100):
            await change(number)

    await asyncio.gather(
        node.begin(),
        churn(lambda number: node.remove_user(f"s{number}")),
        churn(lambda number: node.add_user(f"new-{number}", f"n{number}", "c")),
        churn(lambda number: node.remove_user(f"s{number + 200}")),
    )
    await node.begin()
    stats = await node.get_stats()
    assert (stats["online_users"], stats["sessions"]) == (300, 300)
