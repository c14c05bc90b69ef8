"""What is said at one node reaches the right sockets of every node, once."""

import asyncio
import time

import pytest

from tests.fleet.crowd import Member, broadcast, crowd, on_each, percentile
from tests.processes import Fleet
from tests.waiting import eventually


async def test_broadcasts_at_any_node_reach_every_socket_once_in_one_order_within_a_second(fleet: Fleet) -> None:
    asked_at: dict[str, float] = {}
    turns = asyncio.Semaphore(10)

    async def post(number: int) -> None:
        async with turns:
            started = time.monotonic()
            said = await broadcast(fleet.nodes[number % 3], f"number {number}")
            asked_at[str(said["id"])] = started
            assert (said["recipients"], said["degraded"]) == (30, False)

    async with crowd(*on_each(fleet.nodes, 10)) as members:
        await fleet.until_counted(30, 3)
        await asyncio.gather(*(post(number) for number in range(60)))
        await eventually(lambda: all(len(member.heard) >= 60 for member in members))
        first = members[0].ids()
        assert sorted(first) == sorted(asked_at)
        assert [member.ids() for member in members if member.ids() != first] == []
        took = [message["at"] - asked_at[message["id"]] for member in members for message in member.heard]
        print(f"broadcast, POST to arrival: p50 {percentile(took, 0.5):.3f} s, p99 {percentile(took, 0.99):.3f} s")
        assert percentile(took, 0.99) < 1


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        ({"users": ["ana"]}, {"ana-mobile", "ana-desktop"}),
        ({"users": ["ana", "ben"]}, {"ana-mobile", "ana-desktop", "ben-mobile"}),
        ({"devices": ["mobile"]}, {"ana-mobile", "ben-mobile"}),
        ({"devices": ["desktop", "tablet"]}, {"ana-desktop"}),
        ({"devices": ["tablet"]}, set()),
        ({}, {"ana-mobile", "ana-desktop", "ben-mobile"}),
    ],
    ids=["one user", "two users", "mobile", "two devices", "nobody", "everybody"],
)
async def test_only_the_audience_receives_and_a_dry_run_tells_how_many(
    fleet: Fleet, users: dict[str, tuple[str, str]], audience: dict[str, list[str]], expected: set[str]
) -> None:
    named = [f"{user}-{device}" for user, device in (("ana", "mobile"), ("ana", "desktop"), ("ben", "mobile"))]
    asked = {kind: [users[name][0] if name in users else name for name in names] for kind, names in audience.items()}
    members = [
        Member(node, users[user][1], client_id=f"{user}-{device}", device=device)
        for node in fleet.nodes
        for user, device in (name.split("-") for name in named)
    ]
    async with crowd(*members):
        for node in fleet.nodes:  # who is only here by REST has no socket to be reached at
            beat = await node.http.post("/api/v1/presence/heartbeat", headers={"x-api-key": users["ana"][1]}, json={})
            assert beat.status_code == 200
        await fleet.until_counted(9, 3)
        for node in fleet.nodes:
            assert (await broadcast(node, dry_run=True, **asked))["recipients"] == 3 * len(expected)
        sent = await broadcast(fleet.nodes[0], "to some", **asked)
        last = await broadcast(fleet.nodes[0], "to all")  # heard by everybody, so the first is through
        assert sent["recipients"] == 3 * len(expected)
        await eventually(lambda: all(member.ids()[-1:] == [last["id"]] for member in members))
        received = [member for member in members if sent["id"] in member.ids()]
        assert len(received) == 3 * len(expected)
        assert {name for member, name in zip(members, named * 3, strict=True) if member in received} == expected
        assert [member.doubled() for member in members if member.doubled()] == []
