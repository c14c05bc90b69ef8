"""Presence: the same contract over memory, Redis and Redis Cluster; nodes that die, Redis that forgets."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY
from zoneinfo import ZoneInfo

import pytest
import redis

from service.errors import Invalid
from service.presence.memory import MemoryPresence
from service.presence.sessions import Presence
from service.presence.tracker import Tracker
from service.state.failover import Answered, Failover
from tests.presence.nodes import Given, Nodes, online, sizes
from tests.servers import OwnValkey
from tests.waiting import eventually

NoDevices = {"mobile": 0, "tablet": 0, "desktop": 0, "unknown": 0}


async def keeps_the_contract(node: Tracker, degraded: bool = False) -> None:
    await node.add_user(user_id="ana", session_id="s1", client_id="c1", device_type="mobile")
    await node.add_user(user_id="ana", session_id="s2", client_id="c2", device_type="desktop")
    await node.add_user(user_id="bob", session_id="s3", client_id="c3", device_type="teapot")
    await node.add_user(user_id="bob", session_id="s3", client_id="c3", device_type="teapot")
    stats = await node.get_stats()
    assert stats["online_users"] == 2
    assert (stats["sessions"], stats["sockets"]) == (3, 3)
    assert stats["devices"] == {"mobile": 1, "tablet": 0, "desktop": 1, "unknown": 1}
    assert stats["active_users"] == {"day": 2, "week": 2, "month": 2}
    assert stats["nodes"] == 1
    assert stats["degraded"] is degraded
    await node.remove_user("s1")
    await node.remove_user("s1")
    await node.remove_user("s3")
    stats = await node.get_stats()
    assert (stats["online_users"], stats["sessions"]) == (1, 1)
    await node.remove_user("s2")
    stats = await node.get_stats()
    assert (stats["online_users"], stats["devices"]) == (0, NoDevices)
    await counts_both_kinds(node)
    await answers_questions(node, degraded)


async def counts_both_kinds(node: Tracker) -> None:
    await node.add_user("ana", "s1", "c", "mobile")
    await node.heartbeat("ana", "r1", "c", "mobile")
    await node.heartbeat("ana", "r1", "c", "mobile")
    await node.heartbeat("bob", "r1", "c", "desktop")
    stats = await node.get_stats()
    assert (stats["online_users"], stats["sessions"], stats["sockets"]) == (2, 3, 1)
    assert stats["devices"] == {"mobile": 2, "tablet": 0, "desktop": 1, "unknown": 0}
    await node.heartbeat("bob", "r1", "c", "tablet")
    assert (await node.get_stats())["devices"] == {"mobile": 2, "tablet": 1, "desktop": 0, "unknown": 0}
    await node.remove_user("s1")
    assert await sizes(node) == (2, 2, 0)
    await node.end_heartbeat("r1", "ana")
    await node.end_heartbeat("r1", "ana")
    assert await sizes(node) == (1, 1, 0)
    await node.end_heartbeat("r1", "bob")
    assert await sizes(node) == (0, 0, 0)


async def answers_questions(node: Tracker, degraded: bool) -> None:
    for user, session, device in (("ana", "s1", "mobile"), ("ana", "s2", "tablet"), ("bob", "s3", "mobile")):
        await node.add_user(user, session, "c", device)
    await node.heartbeat("ana", "r1", "c", "mobile")
    await node.heartbeat("eve", "r1", "c", "mobile")
    assert await node.sockets() == Answered(3, degraded)
    assert (await node.sockets(users=frozenset({"ana", "eve", "nobody"}))).result == 2
    assert (await node.sockets(users=frozenset())).result == 0
    assert (await node.sockets(devices=frozenset({"mobile", "desktop"}))).result == 2
    assert sorted((await node.online_page()).result.users) == [("ana", 2, 1), ("bob", 1, 0), ("eve", 0, 1)]
    assert await node.online_page() == Answered(ANY, degraded)
    assert (await node.online_page()).result.next_cursor == ""
    assert await node.nodes() == Answered([{}], degraded)
    assert await node.audit() == 0


async def test_memory_keeps_the_contract(nodes: Nodes) -> None:
    node = await nodes.start()
    await keeps_the_contract(node, degraded=True)
    assert (await node.get_stats())["peak"]["all_time"]["users"] == 3


@pytest.mark.parametrize("shards", [1, 16])
async def test_redis_keeps_the_contract(redis_url: str, nodes: Nodes, shards: int) -> None:
    await keeps_the_contract(await nodes.start(redis_url, Given(shards)))


async def test_a_cluster_keeps_the_contract(cluster_url: str, nodes: Nodes) -> None:
    await keeps_the_contract(await nodes.start(cluster_url, Given(16), redis_request_timeout=2))


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


async def test_a_node_that_closes_during_its_beat_does_not_begin_anew(redis_url: str, nodes: Nodes) -> None:
    given = Given(beat=False, watch=False)
    one, two = await nodes.start(redis_url, given), await nodes.start(redis_url, given)
    await two.add_user("bob", "s2", "c")
    await asyncio.gather(two.close(), *(two.beat() for _ in range(20)))
    await two.beat()
    stats = await one.get_stats()
    assert (stats["online_users"], stats["nodes"]) == (0, 1)


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


async def test_a_node_that_dies_between_a_flush_and_its_next_beat_leaves_nothing(redis_url: str, nodes: Nodes) -> None:
    given = Given(beat=False, watch=False)
    survivor, dying = await nodes.start(redis_url, given), await nodes.start(redis_url, given)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    await dying.add_user("ana", "s1", "c")
    await survivor.beat()
    assert await sizes(survivor) == (0, 0, 0)


async def test_what_lands_late_under_an_ended_incarnation_is_reaped_at_the_next_beat(
    redis_url: str, nodes: Nodes
) -> None:
    given = Given(beat=False, watch=False)
    survivor, dying = await nodes.start(redis_url, given), await nodes.start(redis_url, given)
    await dying.close()
    await survivor.beat()
    await dying.add_user("ana", "s1", "c")
    assert await online(survivor) == 1
    await survivor.beat()
    assert await sizes(survivor) == (0, 0, 0)


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
    node = await nodes.start(redis_url, Given(beat=False))
    for number in range(1000):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_commands_processed"]
        await asyncio.sleep(1.0)
        sent = client.info("stats")["total_commands_processed"] - before
    assert sent < 10  # the breaker's pings, and this question


async def test_a_socket_costs_redis_at_most_250_bytes(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(beat=False, watch=False))
    await node.add_user("first", "s", "c")
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("memory")["used_memory"]
        ids = [f"{number:018d}" for number in range(10_000)]
        for start in range(0, len(ids), 1000):
            batch = ids[start : start + 1000]
            await asyncio.gather(*(node.add_user(f"u{name}", f"s{name}", f"c{name}", "mobile") for name in batch))
        assert (client.info("memory")["used_memory"] - before) / len(ids) <= 250


async def test_reading_the_counts_never_scans(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(beat=False))
    for number in range(500):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        await node.get_stats()
        assert not {"cmdstat_hscan", "cmdstat_scan", "cmdstat_keys"} & set(client.info("commandstats"))


@pytest.mark.parametrize("bad", ["", "x" * 129, "a\x1fb", "a\nb"])
async def test_a_hostile_id_is_refused(nodes: Nodes, bad: str) -> None:
    node = await nodes.start()
    with pytest.raises(Invalid, match="user_id must be 1 to 128 printable characters"):
        await node.add_user(bad, "s", "c")


async def test_joins_and_leaves_during_a_new_incarnation_are_counted_right(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(beat=False))
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
