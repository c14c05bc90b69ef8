"""What is decided while a handshake is under way, and ends that come at the worst moment."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
import redis
import websockets

from service.db.pool import one_connection
from service.keys import issuing
from service.keys.block_store import Subject, upsert_block
from service.presence.tracker import Tracker
from tests.live.clients import Client, refusal, socket, url
from tests.live.test_fanout import broadcast, deaf_client, user_key
from tests.nodes import RunningNode, node_settings, running
from tests.server.slow_clients import frame
from tests.servers import OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually


class Door:
    """Holds every session between its admission and its `ready`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        count = Tracker.add_user

        async def held(tracker: Tracker, *arguments: Any) -> None:
            self.reached.set()
            await self.open.wait()
            await count(tracker, *arguments)

        monkeypatch.setattr(Tracker, "add_user", held)


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(monkeypatch)


async def opening(node: RunningNode, key: str) -> tuple[int, str]:
    """Open a socket; the code that it is closed with."""
    async with websockets.connect(url(node), additional_headers={"x-api-key": key}) as connection:
        return await Client(connection).closed()


async def test_who_is_blocked_while_the_handshake_is_under_way_does_not_stay(node: RunningNode, door: Door) -> None:
    user_id, key = await user_key(node, "bob")
    session = asyncio.create_task(opening(node, key))
    await door.reached.wait()
    block = {"reason": "spam", "block_s": 60}
    assert (await node.http.post(f"/api/admin/users/{user_id}/disconnect", json=block)).status_code == 200
    await asyncio.sleep(0.1)  # the bus has it
    door.open.set()
    assert await session == (4003, "spam")


async def test_a_key_revoked_while_the_handshake_is_under_way_does_not_stay(node: RunningNode, door: Door) -> None:
    _, key = await user_key(node, "bob")
    session = asyncio.create_task(opening(node, key))
    await door.reached.wait()
    async with one_connection(node.dsn) as connection:
        key_hash = await issuing.revoke_key(connection, key[9:17])
    await node.parts.revoked(key_hash)
    door.open.set()
    async with asyncio.timeout(3):
        assert (await session)[0] == 4001


async def test_a_node_drained_while_the_handshake_is_under_way_lets_it_go(node: RunningNode, door: Door) -> None:
    _, key = await user_key(node, "bob")
    session = asyncio.create_task(opening(node, key))
    await door.reached.wait()
    await node.http.post("/api/admin/drain?rate=1000")
    await asyncio.sleep(0.2)
    door.open.set()
    assert (await session)[0] == 1012


@pytest.fixture
def quick_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.keys.blocks.RELOAD_EVERY_S", 0.1)


@pytest.mark.usefixtures("quick_reloads")
async def test_a_block_that_the_bus_did_not_tell_closes_open_sockets_too(node: RunningNode) -> None:
    user_id, key = await user_key(node, "bob")
    async with socket(node, key=key) as client:
        async with one_connection(node.dsn) as connection:
            await upsert_block(connection, Subject("user", user_id), 3600, "spam", "me")
        assert await asyncio.wait_for(client.closed(), 10) == (4003, "spam")


async def test_every_seq_that_the_server_says_is_one_to_come_back_with(
    own_valkey: OwnValkey, database_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        async with socket(node) as client:
            await broadcast(node, "one")
            await client.hear("broadcast")
            with redis.Redis.from_url(own_valkey.url) as direct:
                direct.flushall()
            await own_valkey.kill()
            await own_valkey.restart()
            gap = await client.hear("gap")
        async with socket(node, last_seq=gap["seq"]) as back:
            assert back.ready["type"] == "ready"
            await broadcast(node, "two")
            assert (await back.hear("broadcast"))["message"] == "two"


@pytest.mark.parametrize("seq", ["01-0", "1-01", "99999999999999999999-0", "-", "1"])
async def test_a_seq_that_no_stream_gives_is_refused_before_the_handshake(node: RunningNode, seq: str) -> None:
    status, problem = await refusal(node, last_seq=seq)
    assert (status, problem["type"]) == (400, "urn:atp:problem:bad-request")
    assert await node.metric('atp_unhandled_exceptions_total{component="websocket"}') == 0


@pytest.mark.parametrize("origin", ["http://[", "http://", "://", "%00"])
async def test_an_origin_that_is_none_is_refused_and_wakes_nobody(node: RunningNode, origin: str) -> None:
    assert (await refusal(node, headers={"origin": origin}))[0] == 403
    assert await node.metric('atp_unhandled_exceptions_total{component="websocket"}') == 0


async def test_a_chat_and_its_cancel_in_one_packet_leave_the_id_free(node: RunningNode) -> None:
    ask = {"type": "chat", "id": "c1", "agent": "reasoning", "task": "Hello", "model": "stalls"}
    cancel = {"type": "cancel", "id": "c1"}
    raw = await asyncio.to_thread(deaf_client, node)
    with raw:
        for _ in range(3):
            raw.sendall(frame(json.dumps(ask).encode()) + frame(json.dumps(cancel).encode()))
            assert b'"cancelled":true' in await asyncio.to_thread(heard, raw, b'"type":"done"')


def heard(raw: Any, word: bytes) -> bytes:
    received = b""
    while word not in received or not received.endswith(b"}"):
        received += raw.recv(65_536)
    return received


async def test_chats_with_thousands_of_unknown_fields_end_in_1008(node: RunningNode) -> None:
    many = {f"field{number}": number for number in range(3000)}
    async with socket(node) as client:
        for _ in range(21):
            await client.say("chat", id="c1", **many)
        error = await client.hear("error")
        assert error["problem"]["status"] == 422
        assert len(json.dumps(error)) < 1000
        assert await client.closed() == (1008, "too many faults")


async def test_a_quiet_client_learns_its_place_from_pongs(node: RunningNode) -> None:
    async with socket(node, device="mobile") as quiet:
        await broadcast(node, "to desktops", devices=["desktop"])

        async def moved() -> bool:
            await quiet.say("ping")
            return (await quiet.hear("pong")).get("seq", "") > quiet.ready["seq"]

        await eventually(moved)


async def test_a_session_that_is_cut_at_the_end_of_a_drain_leaves_nothing_behind(
    database_url: str, redis_url: str, model_server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.live.hub.BUSY_S", 60)
    settings = node_settings(database_url, redis_url, model_server, llm_gap_timeout=60)
    async with contextlib.AsyncExitStack() as clients, running(settings) as node:
        client = await clients.enter_async_context(socket(node))
        await client.say("chat", id="c1", agent="reasoning", task="Hello", model="stalls")
        await client.hear("delta")
    with redis.Redis.from_url(redis_url) as direct:
        assert direct.hget("atp:{presence:0}:c", "users") == b"0"
        assert direct.keys("atp:{presence:0}:o:*") == []
