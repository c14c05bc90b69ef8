"""Reaching sockets: broadcasts, what a client missed, readers that stall, and letting all of them go."""

import asyncio
import contextlib
import re
import socket as sockets
from typing import Any

import pytest

from service.db.pool import one_connection
from service.keys import issuing
from service.live.socket import Patience
from tests.live.clients import Client, refusal, socket
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream
from tests.waiting import eventually

UPGRADE = (
    "GET /ws/session HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n\r\n"
)


async def broadcast(node: RunningNode, message: str, **more: Any) -> dict[str, Any]:
    response = await node.http.post("/api/admin/broadcast", json={"message": message, **more})
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def user_key(node: RunningNode, name: str) -> tuple[str, str]:
    """A user of its own, and a key of it."""
    async with one_connection(node.dsn) as connection:
        user = await issuing.create_user(connection, name, f"{name}@example.org")
    return user.id, await node.new_key("chat", user=name)


async def test_a_broadcast_reaches_everybody_in_order(node: RunningNode) -> None:
    async with socket(node) as one, socket(node) as two:
        sent = [(await broadcast(node, f"m{number}", title="News", data={"n": number}))["id"] for number in range(20)]
        for client in (one, two):
            heard = [await client.hear("broadcast") for _ in range(20)]
            assert [message["id"] for message in heard] == sent
            assert heard[3] == {
                "type": "broadcast",
                "id": sent[3],
                "seq": heard[3]["seq"],
                "message": "m3",
                "title": "News",
                "data": {"n": 3},
            }
            places = [tuple(map(int, message["seq"].split("-"))) for message in heard]
            assert places == sorted(set(places))


async def test_a_broadcast_to_some_reaches_only_them(node: RunningNode) -> None:
    user_id, key = await user_key(node, "bob")
    async with socket(node, device="tablet") as ours, socket(node, key=key, device="mobile") as bobs:
        assert (await broadcast(node, "to bob", users=[user_id]))["recipients"] == 1
        assert (await broadcast(node, "to tablets", devices=["tablet"]))["recipients"] == 1
        assert (await broadcast(node, "to nobody", users=["usr_nobody"]))["recipients"] == 0
        assert (await broadcast(node, "to all"))["recipients"] == 2
        assert [m["message"] for m in await heard_until(ours, "to all")] == ["to tablets", "to all"]
        assert [m["message"] for m in await heard_until(bobs, "to all")] == ["to bob", "to all"]


async def heard_until(client: Client, last: str) -> list[dict[str, Any]]:
    heard = [await client.hear("broadcast")]
    while heard[-1]["message"] != last:
        heard.append(await client.hear("broadcast"))
    return heard


async def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(node: RunningNode) -> None:
    async with socket(node) as client:
        await broadcast(node, "before")
        seq = (await client.hear("broadcast"))["seq"]
    await broadcast(node, "missed 1")
    await broadcast(node, "missed 2")
    async with socket(node, last_seq=seq) as back:
        assert back.ready["resumed"] is True
        await broadcast(node, "after")
        assert [m["message"] for m in await heard_until(back, "after")] == ["missed 1", "missed 2", "after"]


async def test_the_seq_of_ready_is_a_place_to_come_back_to_as_well(node: RunningNode) -> None:
    async with socket(node) as client:
        seq = client.ready["seq"]
    await broadcast(node, "missed")
    async with socket(node, last_seq=seq) as back:
        assert (await back.hear("broadcast"))["message"] == "missed"


async def test_a_push_to_others_is_not_handed_over_on_return(node: RunningNode) -> None:
    async with socket(node, device="mobile") as client:
        seq = client.ready["seq"]
    await broadcast(node, "to desktops", devices=["desktop"])
    await broadcast(node, "to mobiles", devices=["mobile"])
    async with socket(node, last_seq=seq, device="mobile") as back:
        assert (await back.hear("broadcast"))["message"] == "to mobiles"


@pytest.mark.parametrize("seq", ["1-0", "99999999999999-0"])
async def test_who_was_away_too_long_is_told_of_a_gap(node: RunningNode, seq: str) -> None:
    async with socket(node, last_seq=seq) as back:
        assert back.ready["resumed"] is False
        gap = await back.next()
        assert gap == {"type": "gap", "seq": back.ready["seq"]}
        await broadcast(node, "from here on")
        assert (await back.hear("broadcast"))["message"] == "from here on"


async def test_more_than_a_reader_may_have_waiting_is_a_gap_and_no_endless_loop(node: RunningNode) -> None:
    async with socket(node) as client:
        seq = client.ready["seq"]
    for _ in range(20):
        await broadcast(node, "x" * 8000)
    async with socket(node, last_seq=seq) as back:
        assert (await back.next())["type"] == "gap"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def patience(idle_s: float) -> Patience:
        return Patience(idle_s=idle_s, ping_s=0.3, pong_s=0.3)

    monkeypatch.setattr("service.wiring.live.Patience", patience)


def deaf_client(node: RunningNode) -> sockets.socket:
    """A raw client that opens a socket and then neither reads nor answers."""
    host = node.url.removeprefix("http://")
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.settimeout(5)
    name, port = host.split(":")
    raw.connect((name, int(port)))
    raw.sendall(UPGRADE.format(host=host, key=node.key).encode())
    assert raw.recv(12) == b"HTTP/1.1 101"
    return raw


@pytest.mark.usefixtures("impatient")
async def test_a_peer_that_is_gone_without_a_word_is_found_by_its_missing_pong(node: RunningNode) -> None:
    with await asyncio.to_thread(deaf_client, node):
        async with socket(node) as living:

            async def found() -> bool:
                name = 'atp_ws_disconnects_total{code="no_pong",initiator="server"}'
                return await node.metric(name) == 1

            await eventually(found)
            await living.say("ping", id="1")
            await living.hear("pong")
    assert await node.metric("atp_ws_ping_rtt_seconds_count") >= 1


async def test_an_idle_socket_is_closed_at_the_limit(database_url: str, redis_url: str, model_server: Upstream) -> None:
    settings = node_settings(database_url, redis_url, model_server, websocket_timeout=0.5)
    async with running(settings) as node, socket(node) as idle, socket(node) as active:
        for _ in range(4):
            await active.say("ping")
            await active.hear("pong")
            await asyncio.sleep(0.2)
        assert await idle.closed() == (1001, "idle")
        await active.say("ping")
        await active.hear("pong")


async def test_a_reader_that_stalls_is_cut_and_delays_nobody(node: RunningNode) -> None:
    with await asyncio.to_thread(deaf_client, node):
        async with socket(node) as reader:
            for number in range(120):  # 1 MB: more than the kernel and the queue hold
                await broadcast(node, f"{number}" + "x" * 7990)
                assert (await reader.hear("broadcast"))["message"].startswith(str(number))

            async def cut() -> bool:
                name = 'atp_ws_disconnects_total{code="slow_reader",initiator="server"}'
                return await node.metric(name) == 1

            await eventually(cut, within_s=10)


async def test_a_node_that_stops_sends_its_clients_away_with_a_hint(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with running(node_settings(database_url, redis_url, model_server)) as node:
            opened = [await clients.enter_async_context(socket(node)) for _ in range(20)]
            ends = [asyncio.create_task(client.closed()) for client in opened]
        codes = [await end for end in ends]
    assert {code for code, _ in codes} == {1012}
    hints = {re.fullmatch(r"restart; retry_ms=(\d+)", reason)[1] for _, reason in codes}  # type: ignore[index]
    assert len(hints) > 10  # not all come back at once


async def test_a_chat_under_way_is_finished_before_its_socket_is_closed(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with running(node_settings(database_url, redis_url, model_server)) as node:
            client = await clients.enter_async_context(socket(node))
            await client.say("chat", id="c1", agent="reasoning", task="Hello", model="slow")
            await client.hear("delta")
        assert (await client.hear("done"))["id"] == "c1"
        assert (await client.closed())[0] == 1012


@pytest.fixture
async def draining(node: RunningNode) -> RunningNode:
    assert (await node.http.post("/api/admin/drain?rate=1000")).status_code == 202
    return node


async def test_a_draining_node_is_not_ready_turns_sockets_away_and_goes_on_when_told(draining: RunningNode) -> None:
    node = draining

    async def not_ready() -> bool:
        return (await node.private.get("/readyz")).status_code == 503

    await eventually(not_ready)
    status, problem = await refusal(node)
    assert (status, problem["reason"]) == (503, "draining")
    assert (await node.http.get("/api/v1/models")).status_code == 200
    assert (await node.http.delete("/api/admin/drain")).status_code == 202

    async def ready() -> bool:
        return (await node.private.get("/readyz")).status_code == 200

    await eventually(ready)
    async with socket(node):
        pass
