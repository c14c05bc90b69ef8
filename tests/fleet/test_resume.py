"""A client that moves from node to node, by itself or because one is drained, misses nothing and gets nothing twice."""

import asyncio
import re
import time

import pytest

from tests.fleet.crowd import Member, broadcast, crowd, handshake, on_each
from tests.live.clients import socket
from tests.processes import Fleet
from tests.waiting import eventually

RATE = 50


async def test_who_comes_back_to_another_node_gets_what_was_said_meanwhile_in_order(fleet: Fleet) -> None:
    first, second, third = fleet.nodes
    async with crowd(Member(first)) as (member,):
        said = [await broadcast(node, "while it is here") for node in fleet.nodes]
        await eventually(lambda: len(member.heard) == 3)
        member.vanish()
        said += [await broadcast(node, f"while it is away {n}") for n in range(4) for node in fleet.nodes]
        await member.come_back(second)
        said += [await broadcast(node, "while it is back") for node in (third, first)]
        await eventually(lambda: len(member.heard) >= 17)
        assert member.ids() == [message["id"] for message in said]
        assert member.ready["resumed"] is True
        seqs = [tuple(map(int, message["seq"].split("-"))) for message in member.heard]
        assert seqs == sorted(seqs)
        assert member.others == []


@pytest.mark.parametrize("node", [0, 1, 2])
async def test_who_comes_back_after_more_than_five_minutes_is_told_of_a_gap(fleet: Fleet, node: int) -> None:
    long_ago = f"{int(time.time() * 1000) - 301_000}-0"
    async with socket(fleet.nodes[node], last_seq=long_ago) as client:
        assert client.ready["resumed"] is False
        assert await client.next() == {"type": "gap", "seq": client.ready["seq"]}


async def test_a_drained_node_lets_its_sockets_go_one_by_one_and_none_of_them_misses_anything(fleet: Fleet) -> None:
    asked, drained, third = fleet.nodes
    said: list[str] = []
    closes: list[tuple[int, str]] = []
    at: list[float] = []

    async def goes_elsewhere(member: Member, number: int) -> None:
        await eventually(lambda: member.ended is not None)
        assert member.ended is not None
        closes.append(member.ended)
        at.append(member.ended_at)
        hint = re.search(r"retry_ms=(\d+)", member.ended[1])
        assert hint is not None
        await asyncio.sleep(int(hint[1]) / 1000)  # as the server asks
        await member.come_back((asked, third)[number % 2])

    async def talk() -> None:
        while True:
            said.append((await broadcast(third, "all the time"))["id"])
            await asyncio.sleep(0.05)

    async with crowd(*on_each([drained], 30)) as members:
        await fleet.until_counted(30, 3)
        talking = asyncio.create_task(talk())
        asked_at = time.monotonic()
        answer = await asked.http.post("/api/admin/drain", params={"rate": RATE, "node": drained.name})
        assert (answer.status_code, answer.json()["node"]) == (202, "node-2")
        await asyncio.gather(*(goes_elsewhere(member, number) for number, member in enumerate(members)))
        talking.cancel()
        await asyncio.wait([talking])

        assert {code for code, _ in closes} == {1012}
        spread, over_s = max(at) - min(at), max(at) - asked_at
        print(f"drain of 30 sockets at {RATE}/s: over after {over_s:.2f} s, {spread:.2f} s of it between closes")
        # 29 / RATE is 0.58 s; the closes of one step of 0.05 s go together, and a busy client may see the first late.
        assert over_s >= 0.5
        assert spread >= 0.4
        assert not await drained.ready()
        refused = await handshake(drained)
        assert (refused.status_code, refused.json()["reason"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        last = await broadcast(asked, "the end")
        await eventually(lambda: all(member.ids()[-1:] == [last["id"]] for member in members))
        assert len(said) >= 10
        for member in members:
            assert set(said) <= set(member.ids())
            assert member.doubled() == []
            assert member.others == []

        answer = await asked.http.delete("/api/admin/drain", params={"node": drained.name})
        assert answer.status_code == 202
        await eventually(drained.ready)
        async with socket(drained) as client:
            assert client.ready["type"] == "ready"
