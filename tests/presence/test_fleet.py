"""Questions about the fleet: its sockets, who is online page by page, its nodes; and its peaks over several shards."""

import asyncio

import pytest
import redis

from service.errors import BadRequest
from service.presence.tracker import Tracker
from tests.presence.nodes import Given, Nodes
from tests.waiting import eventually

BY_HAND = Given(beat=False, watch=False)


async def everyone(node: Tracker, limit: int) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    cursor = ""
    while True:
        page = (await node.online_page(cursor, limit)).result
        found += page.users
        cursor = page.next_cursor
        if not cursor:
            return found


@pytest.mark.parametrize(("shards", "users"), [(1, 1000), (16, 1000), (16, 3), (1, 0)])
async def test_pages_together_say_everyone(redis_url: str, nodes: Nodes, shards: int, users: int) -> None:
    node = await nodes.start(redis_url, Given(shards, beat=False, watch=False))
    await asyncio.gather(*(node.add_user(f"user-{number}", f"s{number}", "c") for number in range(users)))
    assert set(await everyone(node, 50)) == {(f"user-{number}", 1, 0) for number in range(users)}


async def test_a_page_is_about_as_long_as_asked(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(4, beat=False, watch=False))
    await asyncio.gather(*(node.heartbeat(f"user-{number}", "r", "c") for number in range(4000)))
    page = (await node.online_page("", 100)).result
    assert 100 <= len(page.users) < 200
    assert page.users[0][1:] == (0, 1)


async def test_memory_pages_in_the_order_of_names(nodes: Nodes) -> None:
    node = await nodes.start()
    for name in ("dan", "ana", "cid", "bob", "eve"):
        await node.add_user(name, f"s-{name}", "c")
    first = (await node.online_page("", 2)).result
    assert (first.users, first.next_cursor) == ([("ana", 1, 0), ("bob", 1, 0)], "m.bob")
    await node.remove_user("s-bob")
    assert [user for user, _, _ in (await node.online_page(first.next_cursor, 2)).result.users] == ["cid", "dan"]
    assert len(await everyone(node, 3)) == 4


MALFORMED = ["x", "1", "0.", ".0", "0.-1", "0.1.2", "99.0", "0.99999999999999999999", "0. 1", "m.", "٣.٣"]


@pytest.mark.parametrize("cursor", MALFORMED)
async def test_a_malformed_cursor_is_refused(redis_url: str, nodes: Nodes, cursor: str) -> None:
    node = await nodes.start(redis_url, Given(16, beat=False, watch=False))
    with pytest.raises(BadRequest, match="cursor is not one that this list gave out"):
        await node.online_page(cursor)


@pytest.mark.parametrize("cursor", ["x", "m.", "0.-1"])
async def test_memory_refuses_a_malformed_cursor(nodes: Nodes, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor is not one that this list gave out"):
        await (await nodes.start()).online_page(cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_out_of_range_is_refused(nodes: Nodes, limit: int) -> None:
    with pytest.raises(BadRequest, match="limit must be 1 to 1000"):
        await (await nodes.start()).online_page("", limit)


async def test_a_list_begun_before_an_outage_begins_anew_in_it_and_after_it(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    for number in range(600):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    before = (await node.online_page("", 10)).result
    nodes.cut(node)
    during = (await node.online_page(before.next_cursor, 10)).result
    assert during.users[0] == ("user-0", 1, 0)
    assert during.next_cursor == "m.user-106"
    await nodes.mend(node)
    after = (await node.online_page(during.next_cursor, 10)).result
    assert after.next_cursor.startswith("0.")


async def test_sockets_of_the_whole_fleet_by_user_and_device(redis_url: str, nodes: Nodes) -> None:
    given = Given(16, beat=False, watch=False)
    one, two = await nodes.start(redis_url, given), await nodes.start(redis_url, given)
    await one.add_user("ana", "s1", "c", "mobile")
    await two.add_user("ana", "s2", "c", "desktop")
    await two.add_user("bob", "s3", "c", "mobile")
    await two.heartbeat("bob", "r1", "c", "mobile")
    assert (await one.sockets()).result == 3
    assert (await one.sockets(users=frozenset({"ana"}))).result == 2
    assert (await one.sockets(devices=frozenset({"mobile"}))).result == 2
    assert (await one.sockets(devices=frozenset())).result == 0
    nodes.cut(one)
    assert ((await one.sockets()).result, (await one.sockets(users=frozenset({"ana", "bob"}))).result) == (1, 1)
    assert (await one.sockets(devices=frozenset({"desktop"}))).result == 0
    with pytest.raises(ValueError, match="either users or devices"):
        await one.sockets(frozenset({"ana"}), frozenset({"mobile"}))


async def test_sockets_of_more_users_than_one_call_takes(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    for number in range(20):
        await node.add_user(f"user-{number}", f"s{number}", "c")
    assert (await node.sockets(users=frozenset(f"user-{number}" for number in range(10, 3010)))).result == 10


async def test_users_that_nobody_can_be_have_no_sockets(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, BY_HAND)
    assert (await node.sockets(users=frozenset({"", "\ud800", "x" * 129}))).result == 0


def carrying(name: str) -> Given:
    return Given(beat=False, watch=False, card=lambda: {"node": name, "sockets": 1})


async def test_the_cards_of_living_nodes_are_shown(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url, carrying("one")), await nodes.start(redis_url, carrying("two"))
    assert sorted(card["node"] for card in (await one.nodes()).result) == ["one", "two"]
    await two.close()
    assert (await one.nodes()).result == [{"node": "one", "sockets": 1}]
    nodes.cut(two)
    assert (await two.nodes()).result == [{"node": "two", "sockets": 1}]


async def test_a_card_is_renewed_with_the_lease_and_only_once(redis_url: str, nodes: Nodes) -> None:
    sockets = [0]
    node = await nodes.start(redis_url, Given(beat=False, watch=False, card=lambda: {"sockets": sockets[0]}))
    sockets[0] = 7
    await node.beat()
    assert (await node.nodes()).result == [{"sockets": 7}]
    await node.begin()
    assert (await node.nodes()).result == [{"sockets": 7}]
    with redis.Redis.from_url(redis_url) as client:
        assert client.hlen("atp:{presence:0}:nodes") == 1


@pytest.mark.usefixtures("quick")
async def test_a_dead_nodes_card_goes_with_its_lease(redis_url: str, nodes: Nodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    assert len((await one.nodes()).result) == 2
    await nodes.kill(two)

    async def alone() -> bool:
        return len((await one.nodes()).result) == 1

    await eventually(alone)
    with redis.Redis.from_url(redis_url) as client:
        await eventually(lambda: client.hlen("atp:{presence:0}:nodes") == 1)


async def test_peaks_over_several_shards_are_those_of_the_fleet_at_a_beat(redis_url: str, nodes: Nodes) -> None:
    given = Given(16, beat=False, watch=False)
    one, two = await nodes.start(redis_url, given), await nodes.start(redis_url, given)
    for number in range(40):
        await (one if number % 2 else two).add_user(f"user-{number}", f"s{number}", "c")
    await two.beat()
    for number in range(40):
        await (one if number % 2 else two).remove_user(f"s{number}")
    await one.add_user("late", "s", "c")
    await one.beat()
    peaks = (await one.get_stats())["peak"]
    assert (peaks["today"]["users"], peaks["all_time"]["users"]) == (40, 40)
    assert peaks["today"]["at"] is not None


async def test_more_users_than_at_the_last_beat_are_a_peak_at_once(redis_url: str, nodes: Nodes) -> None:
    node = await nodes.start(redis_url, Given(16, beat=False, watch=False))
    await node.add_user("ana", "s1", "c")
    await node.beat()
    await node.add_user("bob", "s2", "c")
    peaks = (await node.get_stats())["peak"]
    assert (peaks["today"]["users"], peaks["all_time"]["users"]) == (2, 2)
