"""A user may have a hundred REST sessions in the fleet, however many ids a client makes up."""

import asyncio

import pytest
import redis

from service.errors import TooMany
from service.presence.tracker import Tracker
from tests.presence.nodes import Given, Nodes, online, pass_in_redis, sizes

BY_HAND = Given(beat=False, watch=False)


async def fill(node: Tracker, user: str = "ana", count: int = 100) -> None:
    await asyncio.gather(*(node.heartbeat(user, f"r{number}", "c", "mobile") for number in range(count)))


async def keeps_the_cap(node: Tracker) -> None:
    await node.add_user("ana", "s1", "c", "mobile")
    await fill(node)
    with pytest.raises(TooMany, match="A user may have 100 REST sessions"):
        await node.heartbeat("ana", "one more", "c", "tablet")
    assert await sizes(node) == (1, 101, 1)
    await node.heartbeat("ana", "r7", "c", "mobile")
    await node.heartbeat("ana", "r7", "c", "tablet")  # the same session on another device
    assert (await node.get_stats())["devices"] == {"mobile": 100, "tablet": 1, "desktop": 0, "unknown": 0}
    await node.heartbeat("bob", "r1", "c")
    await node.add_user("ana", "s2", "c")  # sockets have caps of their own
    assert await sizes(node) == (2, 103, 2)
    await node.end_heartbeat("r7", "ana")
    await node.heartbeat("ana", "one more", "c", "tablet")
    with pytest.raises(TooMany):
        await node.heartbeat("ana", "r7", "c")
    assert sorted((await node.online_page()).result.users) == [("ana", 2, 100), ("bob", 0, 1)]
    assert await node.audit() == 0


async def test_memory_keeps_the_cap(nodes: Nodes) -> None:
    await keeps_the_cap(await nodes.start())


@pytest.mark.parametrize("shards", [1, 16])
async def test_redis_keeps_the_cap(redis_url: str, nodes: Nodes, shards: int) -> None:
    await keeps_the_cap(await nodes.start(redis_url, Given(shards, beat=False, watch=False)))


async def test_a_cluster_keeps_the_cap(cluster_url: str, nodes: Nodes) -> None:
    await keeps_the_cap(await nodes.start(cluster_url, Given(16, beat=False, watch=False)))


async def test_of_many_at_once_as_many_as_may_be_are_counted(redis_url: str, nodes: Nodes) -> None:
    for node in (await nodes.start(redis_url, BY_HAND), await nodes.start()):
        calls = (node.heartbeat("ana", f"r{number}", "c") for number in range(450))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, TooMany) for outcome in outcomes) == 350
        assert sum(outcome is None for outcome in outcomes) == 100
        assert await sizes(node) == (1, 100, 0)


async def test_the_cap_is_the_fleets_and_what_is_refused_is_forgotten(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await fill(one)
    with pytest.raises(TooMany):
        await two.heartbeat("ana", "one more", "c")
    await two.heartbeat("ana", "r7", "c", "mobile")
    await two.begin()
    assert await sizes(two) == (1, 100, 0)
    nodes.cut(two)
    assert await sizes(two) == (1, 1, 0)


async def test_sessions_that_ended_by_another_node_make_room(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await fill(one)
    for number in range(100):
        await two.end_heartbeat(f"r{number}", "ana")
    await one.heartbeat("ana", "another", "c")
    assert await sizes(one) == (1, 1, 0)


async def test_sessions_whose_time_has_come_make_room(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    await fill(node)
    with redis.Redis.from_url(redis_url) as client:
        pass_in_redis(client, 0, 60)
    await node.beat()
    await node.heartbeat("ana", "another", "c")
    assert await online(node) == 1


async def test_while_redis_is_away_a_node_keeps_the_cap_and_then_the_fleet(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    nodes.cut(one)
    nodes.cut(two)
    await fill(one, count=100)
    with pytest.raises(TooMany):
        await one.heartbeat("ana", "one more", "c")
    await asyncio.gather(*(two.heartbeat("ana", f"t{number}", "c") for number in range(60)))
    await nodes.mend(one)
    await nodes.mend(two)
    assert await sizes(one) == await sizes(two) == (1, 100, 0)
    with pytest.raises(TooMany):
        await two.heartbeat("ana", "t1", "c")
    assert [await two.audit(), await two.audit()] == [0, 0]
