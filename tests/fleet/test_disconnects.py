"""An administrator's word against a user or a key holds on every node within a second."""

import asyncio
import time
from typing import Any

import httpx2

from tests.commands.running import atp
from tests.fleet.crowd import Member, crowd, handshake, on_each, percentile
from tests.live.clients import socket
from tests.processes import Fleet, NodeProcess
from tests.waiting import eventually

Users = dict[str, tuple[str, str]]


async def disconnect(node: NodeProcess, user_id: str, **fields: Any) -> dict[str, Any]:
    answer = await node.http.post(f"/api/admin/users/{user_id}/disconnect", json=fields)
    assert answer.status_code == 200
    said: dict[str, Any] = answer.json()
    return said


async def models_as(node: NodeProcess, key: str) -> httpx2.Response:
    return await node.http.get("/api/v1/models", headers={"x-api-key": key})


async def all_ended(members: list[Member], within_s: float = 5.0) -> None:
    await eventually(lambda: all(member.ended for member in members), within_s)


async def test_a_disconnected_user_loses_every_socket_on_every_node_within_a_second_and_nobody_else_does(
    fleet: Fleet, users: Users
) -> None:
    ana, ben = users["ana"], users["ben"]
    async with crowd(*on_each(fleet.nodes, 10, ana[1]), *on_each(fleet.nodes, 1, ben[1])) as members:
        anas, bens = members[:30], members[30:]
        await fleet.until_counted(33, 3)
        started = time.monotonic()
        said = await disconnect(fleet.nodes[0], ana[0], reason="tidying up")
        await all_ended(anas)
        assert (said["sockets"], said["degraded"]) == (30, False)
        assert {member.ended for member in anas} == {(4002, "tidying up")}
        took = [member.ended_at - started for member in anas]
        print(f"disconnect, POST to close: p50 {percentile(took, 0.5):.3f} s, max {max(took):.3f} s")
        assert max(took) < 1
        assert [member.ended for member in bens] == [None, None, None]
        await fleet.until_counted(3, 3)


async def test_a_disconnected_session_on_another_node_is_one_socket(fleet: Fleet, users: Users) -> None:
    user_id, key = users["ana"]
    async with crowd(*on_each(fleet.nodes, 3, key)) as members:
        await fleet.until_counted(9, 3)
        chosen = members[-1]  # on the third node; the first is asked
        said = await disconnect(fleet.nodes[0], user_id, session_id=chosen.session_id)
        await all_ended([chosen])
        assert said["sockets"] == 1
        assert chosen.ended == (4002, "")
        await fleet.until_counted(8, 3)
        assert [member.ended for member in members[:-1]] == [None] * 8


async def test_a_blocked_user_is_kept_out_of_every_node_until_the_block_is_lifted(fleet: Fleet, users: Users) -> None:
    user_id, key = users["ana"]
    async with crowd(*on_each(fleet.nodes, 2, key)) as members:
        await fleet.until_counted(6, 3)
        started = time.monotonic()
        said = await disconnect(fleet.nodes[1], user_id, block_s=600, reason="a pause")
        await all_ended(members)
        took = max(member.ended_at for member in members) - started
    assert said["sockets"] == 6
    assert {member.ended for member in members} == {(4003, "a pause")}
    assert took < 1
    for node in fleet.nodes:
        socket_refused = await handshake(node, key)
        assert socket_refused.headers["connection"] == "close"
        for refused in (socket_refused, await models_as(node, key)):
            assert (refused.status_code, refused.json()["reason"]) == (403, "blocked")
            assert 590 <= int(refused.headers["retry-after"]) <= 600
    lifted = await fleet.nodes[2].http.delete(f"/api/admin/users/{user_id}/block")
    assert lifted.status_code == 200

    async def let_in() -> bool:
        return all([(await models_as(node, key)).status_code == 200 for node in fleet.nodes])

    assert await eventually(let_in) < 1
    for node in fleet.nodes:
        async with socket(node, key) as client:
            assert client.ready["user_id"] == user_id


async def test_a_key_revoked_on_the_command_line_loses_its_sockets_everywhere_within_a_second(
    fleet: Fleet, users: Users
) -> None:
    key = await fleet.new_key("ana")
    async with crowd(*on_each(fleet.nodes, 10, key), *on_each(fleet.nodes, 1, users["ana"][1])) as members:
        ending, staying = members[:30], members[30:]
        revoked = await asyncio.to_thread(atp, "keys", "revoke", key[9:17], **fleet.urls)
        returned = time.monotonic()
        assert (revoked.returncode, revoked.stdout) == (0, "revoked\n")
        await all_ended(ending)
        assert {member.ended for member in ending} == {(4001, "the API key has ended")}
        took = [member.ended_at - returned for member in ending]
        print(f"keys revoke, command's end to close: p50 {percentile(took, 0.5):.3f} s, max {max(took):.3f} s")
        assert max(took) < 1
        assert [member.ended for member in staying] == [None, None, None]
        for node in fleet.nodes:
            refused = await models_as(node, key)
            assert (refused.status_code, refused.json()["reason"]) == (401, "revoked")
