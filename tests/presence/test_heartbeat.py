"""REST sessions: held by heartbeats that reach any node, ended by time, remembered over an outage."""

import time

import pytest
import redis

from service.errors import Invalid
from tests.presence.nodes import Clocks, Given, Nodes, online, pass_in_redis, sizes

EXPIRIES = "atp:{presence:0}:x"
BY_HAND = Given(beat=False, watch=False)


class Hand:
    """A clock that a test moves, seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pass_by(url: str, seconds: int) -> None:
    with redis.Redis.from_url(url) as client:
        pass_in_redis(client, 0, seconds)


async def test_heartbeats_of_one_client_on_two_nodes_are_one_session(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await one.heartbeat("ana", "r1", "c", "mobile")
    await two.heartbeat("ana", "r1", "c", "mobile")
    assert await sizes(one) == (1, 1, 0)
    await two.end_heartbeat("r1", "ana")
    assert await sizes(one) == (0, 0, 0)


async def test_a_node_that_never_heard_of_a_session_may_end_it(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await one.heartbeat("ana", "r1", "c")
    await two.end_heartbeat("r1", "ana")
    assert await sizes(one) == (0, 0, 0)


async def test_a_session_lives_for_a_minute_from_its_last_heartbeat(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await one.heartbeat("ana", "r1", "c")
    await one.heartbeat("bob", "r1", "c")
    pass_by(redis_url, 40)
    await one.heartbeat("bob", "r1", "c")
    pass_by(redis_url, 19)
    await two.beat()
    assert await sizes(one) == (2, 2, 0)
    pass_by(redis_url, 1)
    await two.beat()
    assert await sizes(one) == (1, 1, 0)
    with redis.Redis.from_url(redis_url) as client:
        assert client.zrange(EXPIRIES, 0, -1) == [b"bob\x1fr1"]


async def test_many_that_end_at_once_are_reaped_in_one_beat(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    for number in range(450):
        await node.heartbeat(f"user-{number}", "r", "c")
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(EXPIRIES, dict.fromkeys(client.zrange(EXPIRIES, 0, -1), 1))
    await node.beat()
    assert await sizes(node) == (0, 0, 0)


async def test_a_dying_node_takes_no_rest_session_with_it(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)
    await two.heartbeat("ana", "r1", "c")
    await two.add_user("ana", "s1", "c")
    await two.close()
    await one.beat()
    assert await sizes(one) == (1, 1, 0)


async def test_while_redis_is_away_this_nodes_rest_sessions_count_and_end_by_its_own_clock(
    redis_url: str, nodes: Nodes
) -> None:
    monotonic = Hand(100.0)
    given = Given(beat=False, watch=False, clocks=Clocks(monotonic=monotonic))
    node = await nodes.start(redis_url, given)
    await node.heartbeat("ana", "r1", "c")
    nodes.cut(node)
    await node.heartbeat("bob", "r1", "c")
    assert await sizes(node) == (2, 2, 0)
    monotonic.now += 59.9
    await node.heartbeat("bob", "r1", "c")
    monotonic.now += 0.1
    assert await sizes(node) == (1, 1, 0)
    monotonic.now += 60
    assert await sizes(node) == (0, 0, 0)


async def test_memory_ends_those_not_heard_of_however_others_go_on(nodes: Nodes) -> None:
    monotonic = Hand(100.0)
    node = await nodes.start("", Given(clocks=Clocks(monotonic=monotonic)))
    await node.heartbeat("ana", "r1", "c")
    monotonic.now += 10
    await node.heartbeat("bob", "r1", "c")
    monotonic.now += 40
    await node.heartbeat("ana", "r1", "c")
    monotonic.now += 20
    assert (await node.online_page()).result.users == [("ana", 0, 1)]


async def test_what_has_ended_by_then_is_not_told_again(redis_url: str, nodes: Nodes) -> None:
    monotonic = Hand(100.0)
    node = await nodes.start(redis_url, Given(beat=False, watch=False, clocks=Clocks(monotonic=monotonic)))
    await node.heartbeat("ana", "r1", "c")
    nodes.cut(node)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    monotonic.now += 60
    await nodes.mend(node)
    assert await sizes(node) == (0, 0, 0)


async def test_after_a_flush_a_beat_counts_rest_sessions_again_for_the_time_they_had_left(
    redis_url: str, nodes: Nodes
) -> None:
    monotonic = Hand(100.0)
    given = Given(beat=False, watch=False, clocks=Clocks(monotonic=monotonic))
    node = await nodes.start(redis_url, given)
    await node.heartbeat("ana", "r1", "c", "mobile")
    await node.add_user("ana", "s1", "c", "mobile")
    monotonic.now += 45
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        await node.beat()
        assert await sizes(node) == (1, 2, 1)
        left_ms = client.zscore(EXPIRIES, "ana\x1fr1") - time.time() * 1000
        assert 13_000 < left_ms < 15_100
        monotonic.now += 20
        client.flushall()
    await node.beat()
    assert await sizes(node) == (1, 1, 1)


async def test_what_was_remembered_never_shortens_what_another_node_heard_later(redis_url: str, nodes: Nodes) -> None:
    monotonic = Hand(100.0)
    early = await nodes.start(redis_url, Given(beat=False, watch=False, clocks=Clocks(monotonic=monotonic)))
    late = await nodes.start(redis_url, BY_HAND)
    await early.heartbeat("ana", "r1", "c")
    monotonic.now += 59
    await late.heartbeat("ana", "r1", "c")
    await early.begin()
    pass_by(redis_url, 50)
    await early.beat()
    assert await online(early) == 1


@pytest.mark.parametrize("jump_s", [3600, -3600])
async def test_a_jump_of_a_nodes_time_of_day_ends_nothing(redis_url: str, nodes: Nodes, jump_s: int) -> None:
    wall = Hand(1_700_000_000.0)
    node = await nodes.start(redis_url, Given(beat=False, watch=False, clocks=Clocks(wall=wall)))
    await node.heartbeat("ana", "r1", "c")
    await node.add_user("bob", "s1", "c")
    wall.now += jump_s
    await node.beat()
    assert await sizes(node) == (2, 2, 1)
    await node.heartbeat("ana", "r1", "c")
    nodes.cut(node)
    assert await sizes(node) == (2, 2, 1)
    await nodes.mend(node)
    assert await sizes(node) == (2, 2, 1)


async def test_an_end_from_before_redis_set_its_clock_back_is_brought_to_a_minute(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    await node.heartbeat("ana", "r1", "c")
    pass_by(redis_url, -3600)
    await node.beat()
    with redis.Redis.from_url(redis_url) as client:
        assert client.zscore(EXPIRIES, "ana\x1fr1") - time.time() * 1000 < 60_100
    assert await online(node) == 1


async def test_a_heartbeat_is_one_call_of_redis(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    await node.heartbeat("ana", "r1", "c")
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        for _ in range(10):
            await node.heartbeat("ana", "r1", "c")
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 10


async def test_a_hostile_id_of_a_rest_session_is_refused(nodes: Nodes) -> None:
    node = await nodes.start()
    with pytest.raises(Invalid, match="session_id must be 1 to 128 printable characters"):
        await node.heartbeat("ana", "bob\x1fr1", "c")
    with pytest.raises(Invalid, match="session_id must be 1 to 128 printable characters"):
        await node.end_heartbeat("", "ana")
