"""Joins and leaves that come at the same time share their calls of Redis."""

import asyncio
from collections.abc import Sequence

import pytest
import redis

from service.presence.changes import Changes
from service.presence.sessions import Session
from tests.presence.nodes import Given, Nodes, sizes
from tests.servers import OwnValkey

BY_HAND = Given(beat=False, watch=False)


def session(name: str) -> Session:
    return Session(name, "ana", "c", "mobile", 0)


class Writes:
    """A write that ends when the test says so."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.began, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, touched: Sequence[Session]) -> bool:
        self.seen.append(sorted(session.session_id for session in touched))
        self.began.set()
        await self.open.wait()
        return True


async def test_what_comes_during_a_write_shares_the_next_one() -> None:
    write = Writes()
    changes = Changes(write)
    first = asyncio.create_task(changes.made([session("a")]))
    await write.began.wait()
    others = [asyncio.create_task(changes.made([session(name)])) for name in "bcdb"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert write.seen == [["a"]]
    assert not changes.idle
    write.open.set()
    assert await asyncio.gather(first, *others) == [True] * 5
    assert write.seen == [["a"], ["b", "c", "d"]]
    assert changes.idle


async def test_a_waiter_that_is_cancelled_takes_nothing_from_the_others() -> None:
    write = Writes()
    changes = Changes(write)
    leaving, staying = (asyncio.create_task(changes.made([session(name)])) for name in "ab")
    await write.began.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    write.open.set()
    assert await staying is True
    assert write.seen == [["a", "b"]]


async def test_a_write_that_fails_tells_all_its_waiters_and_the_next_is_made() -> None:
    async def fails(touched: Sequence[Session]) -> bool:
        if touched[0].session_id == "a":
            raise ValueError("a fault of ours")
        return True

    changes = Changes(fails)
    outcomes = await asyncio.gather(*(changes.made([session("a")]) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    assert await changes.made([session("b")]) is True


async def test_closing_waits_for_the_writes_on_their_way() -> None:
    write = Writes()
    changes = Changes(write)
    waiting = asyncio.create_task(changes.made([session("a")]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(changes.close())
    await write.began.wait()
    assert not closing.done()
    write.open.set()
    await closing
    assert await waiting is True


async def test_a_thousand_joins_at_once_take_few_calls(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    await node.add_user("first", "s", "c")  # the script is loaded
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        await asyncio.gather(*(node.add_user(f"user-{number}", f"s{number}", "c") for number in range(1000)))
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 5
    assert await sizes(node) == (1001, 1001, 1001)


async def test_each_caller_is_counted_when_its_call_returns(redis_url: str, nodes: Nodes) -> None:
    node, other = await nodes.start(redis_url, BY_HAND), await nodes.start(redis_url, BY_HAND)

    async def comes_and_goes(user: str) -> None:
        for turn in range(5):
            await node.add_user(user, f"{user}-{turn}", "c")
            assert (await other.sockets(users={user})).result == 1
            await node.remove_user(f"{user}-{turn}")
            assert (await other.sockets(users={user})).result == 0

    await asyncio.gather(*(comes_and_goes(f"user-{number}") for number in range(20)))
    assert await sizes(other) == (0, 0, 0)


async def test_a_session_that_comes_back_as_another_user_is_counted_as_that(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    await node.add_user("ana", "s1", "c", "mobile")
    await asyncio.gather(node.remove_user("s1"), node.add_user("bob", "s1", "c", "tablet"))
    assert (await node.online_page()).result.users == [("bob", 1, 0)]
    assert (await node.get_stats())["devices"]["tablet"] == 1
    assert await node.audit() == 0


async def test_a_join_and_its_leave_at_once_leave_nothing(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    for _ in range(20):
        await asyncio.gather(node.add_user("ana", "s1", "c"), node.remove_user("s1"))
    assert await sizes(node) == (0, 0, 0)


async def test_a_write_that_redis_did_not_take_is_told_with_the_next_beat(own_valkey: OwnValkey, nodes: Nodes) -> None:
    node, other = await nodes.start(own_valkey.url, BY_HAND), await nodes.start(own_valkey.url, BY_HAND)
    await node.add_user("bob", "s0", "c")
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)  # what would need memory is refused
        await asyncio.gather(node.add_user("ana", "s1", "c"), node.heartbeat("eve", "r", "c"))
        client.config_set("maxmemory", 0)
    assert (await other.online_page()).result.users == [("bob", 1, 0)]
    await node.beat()
    assert sorted((await other.online_page()).result.users) == [("ana", 1, 0), ("bob", 1, 0), ("eve", 0, 1)]
    assert [await node.audit(), await node.audit()] == [0, 0]


async def test_an_outage_releases_all_who_wait(own_valkey: OwnValkey, nodes: Nodes) -> None:
    node = await nodes.start(own_valkey.url, BY_HAND, redis_request_timeout=0.3)
    own_valkey.freeze()
    async with asyncio.timeout(2):
        await asyncio.gather(*(node.add_user(f"user-{number}", f"s{number}", "c") for number in range(100)))
    nodes.cut(node)
    assert await sizes(node) == (100, 100, 100)
    own_valkey.thaw()
    await nodes.mend(node)
    assert await sizes(node) == (100, 100, 100)
