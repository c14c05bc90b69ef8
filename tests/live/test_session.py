"""`GET /ws/session` as a client meets it: who gets in, what is answered, how it ends."""

from collections.abc import AsyncIterator

import pytest
import websockets

from service.db.pool import one_connection
from service.keys import issuing
from tests.live.clients import Client, refusal, socket, turned_away, url
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream
from tests.waiting import eventually

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148"
ASK = {"agent": "reasoning", "task": "What is the capital of France?", "model": "good"}


@pytest.fixture
async def small_node(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    """A node that holds five sockets, three of one key and four of one address, and knows one foreign page."""
    caps = {"max_websocket_connections": 5, "websockets_per_key": 3, "websockets_per_address": 4}
    pages, proxies = ["https://chat.example"], ["127.0.0.1"]
    settings = node_settings(
        database_url,
        redis_url,
        model_server,
        websocket_origins=pages,
        trusted_proxies=proxies,
        **caps,
    )
    async with running(settings) as node:
        yield node


async def online(node: RunningNode) -> dict[str, int]:
    stats: dict[str, int] = (await node.http.get("/api/admin/stats/online-users")).json()
    return stats


async def test_who_is_told_ready_is_counted_and_who_leaves_is_not(node: RunningNode) -> None:
    async with socket(node, device="mobile", client_id="phone-1") as client:
        assert client.ready["type"] == "ready"
        assert client.ready["device"] == "mobile"
        assert client.ready["idle_timeout_s"] == 300
        stats = await online(node)
        assert (stats["online_users"], stats["sockets"]) == (1, 1)
        assert stats["devices"] == {"mobile": 1, "tablet": 0, "desktop": 0, "unknown": 0}
        assert await node.metric('atp_ws_connections{device="mobile"}') == 1

    async def gone() -> bool:
        return (await online(node))["sockets"] == 0

    await eventually(gone)
    assert await node.metric('atp_ws_connections{device="mobile"}') == 0
    assert await node.metric('atp_ws_handshakes_total{result="accepted"}') == 1
    assert await node.metric('atp_ws_disconnects_total{code="1000",initiator="client"}') == 1


async def test_the_user_agent_tells_the_device_of_a_client_that_does_not(node: RunningNode) -> None:
    connection = await websockets.connect(
        url(node), additional_headers={"x-api-key": node.key}, user_agent_header=IPHONE
    )
    async with connection:
        assert (await Client(connection).next())["device"] == "mobile"


async def test_a_bearer_key_opens_a_socket_too(node: RunningNode) -> None:
    async with socket(node, key="", headers={"authorization": f"Bearer {node.key}"}) as client:
        assert client.ready["type"] == "ready"


@pytest.mark.parametrize(
    ("key", "status", "reason"),
    [("", 401, "missing"), ("atp_live_x", 401, "malformed"), ("read-only", 403, "scope")],
)
async def test_who_has_no_right_is_refused_before_the_handshake(
    node: RunningNode, key: str, status: int, reason: str
) -> None:
    shown = await node.new_key("read") if key == "read-only" else key
    found, problem = await refusal(node, key=shown)
    assert (found, problem["status"], problem["reason"]) == (status, status, reason)
    assert await node.metric(f'atp_ws_handshakes_total{{result="{reason}"}}') == 1
    assert await node.metric(f'atp_auth_failures_total{{reason="{reason}"}}') == 1


async def test_a_ticket_opens_one_socket_as_its_owner_and_no_second(node: RunningNode) -> None:
    issued = await node.http.post("/api/v1/ws-tickets")
    assert issued.status_code == 201
    assert issued.headers["cache-control"] == "no-store"
    ticket = issued.json()["ticket"]
    assert issued.json()["expires_in_s"] == 30
    async with socket(node, key="", ticket=ticket) as by_ticket, socket(node) as by_key:
        assert by_ticket.ready["user_id"] == by_key.ready["user_id"]
    status, problem = await refusal(node, key="", ticket=ticket)
    assert (status, problem["reason"]) == (401, "ticket")


async def test_a_ticket_of_a_key_that_was_revoked_meanwhile_opens_nothing(node: RunningNode) -> None:
    key = await node.new_key("chat")
    ticket = (await node.http.post("/api/v1/ws-tickets", headers={"x-api-key": key})).json()["ticket"]
    async with one_connection(node.dsn) as connection:
        key_hash = await issuing.revoke_key(connection, key[9:17])
    await node.parts.revoked(key_hash)
    status, problem = await refusal(node, key="", ticket=ticket)
    assert (status, problem["reason"]) == (401, "revoked")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://chat.example.evil.example", 403),
        ("https://chat.example", 101),
        ("http://{host}", 101),
        ("https://{host}", 101),
    ],
)
async def test_pages_of_other_sites_may_open_sockets_only_when_they_are_listed(
    small_node: RunningNode, origin: str, status: int
) -> None:
    said = origin.format(host=small_node.url.removeprefix("http://"))
    found, problem = await refusal(small_node, headers={"origin": said})
    assert found == status
    if status == 403:
        assert problem["reason"] == "origin"


async def test_a_key_an_address_and_a_node_hold_so_many_sockets_and_no_more(small_node: RunningNode) -> None:
    node = small_node
    other, third = await node.new_key("chat"), await node.new_key("chat")
    async with socket(node), socket(node), socket(node) as last:
        assert await turned_away(node) == (1008, "a key may hold 3 sockets on a node")
        async with socket(node, key=other):
            assert await turned_away(node, key=other) == (1008, "an address may hold 4 sockets on a node")
            elsewhere = {"x-forwarded-for": "198.51.100.7"}
            async with socket(node, key=other, headers=elsewhere):
                assert (await turned_away(node, key=third))[0] == 1013
                await last.connection.close()
                assert await eventually(lambda: opens(node, other)) < 5
    assert await node.metric('atp_ws_handshakes_total{result="key_limit"}') == 1
    assert await node.metric('atp_ws_handshakes_total{result="address_limit"}') == 1
    assert await node.metric('atp_ws_handshakes_total{result="full"}') >= 1


async def opens(node: RunningNode, key: str) -> bool:
    """Whether a place has become free."""
    async with websockets.connect(url(node), additional_headers={"x-api-key": key}) as connection:
        try:
            return (await Client(connection).next())["type"] == "ready"
        except websockets.ConnectionClosed:
            return False


@pytest.mark.parametrize(
    ("query", "status"),
    [({"last_seq": "yesterday"}, 400), ({"client_id": "x" * 129}, 422), ({"client_id": "a\nb"}, 422)],
)
async def test_a_query_that_makes_no_sense_is_a_problem(node: RunningNode, query: dict[str, str], status: int) -> None:
    assert (await refusal(node, **query))[0] == status


async def test_a_ping_is_answered_with_its_id(node: RunningNode) -> None:
    async with socket(node) as client:
        await client.say("ping", id="p1")
        assert await client.next() == {"type": "pong", "id": "p1"}
        await client.say("ping")
        assert await client.next() == {"type": "pong"}


GARBAGE = {
    "hello": "bad-request",
    "": "bad-request",
    "[]": "invalid",
    "null": "invalid",
    '{"type": "shout", "id": "1"}': "invalid",
    '{"type": "ping", "id": ""}': "invalid",
    '{"type": "ping", "id": 7}': "invalid",
    '{"type": "ping", "colour": "red"}': "invalid",
    '{"type": "cancel"}': "invalid",
    '{"type": "chat", "id": "1", "x": ' + "[" * 5000 + "]" * 5000 + "}": "bad-request",
}


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: text[:24])
async def test_what_cannot_be_understood_is_a_typed_error_and_the_socket_lives_on(node: RunningNode, text: str) -> None:
    async with socket(node) as client:
        await client.connection.send(text)
        error = await client.next()
        assert error["type"] == "error"
        assert error["problem"]["type"] == f"urn:atp:problem:{GARBAGE[text]}"
        assert len(error["problem"]["request_id"]) == 32
        await client.say("ping", id="still here")
        assert (await client.next())["id"] == "still here"
    assert await node.metric('atp_ws_messages_total{direction="in",type="invalid"}') == 1


async def test_a_binary_message_is_a_typed_error(node: RunningNode) -> None:
    async with socket(node) as client:
        await client.connection.send(b"\x00\x01")
        assert (await client.next())["problem"]["status"] == 400


async def test_who_keeps_sending_garbage_is_closed_with_1008_and_nobody_else_is(node: RunningNode) -> None:
    async with socket(node) as good, socket(node) as bad:
        for _ in range(21):
            await bad.connection.send("garbage")
        assert await bad.closed() == (1008, "too many faults")
        await good.say("ping", id="1")
        assert (await good.next())["id"] == "1"
    assert await node.metric('atp_ws_disconnects_total{code="1008",initiator="server"}') == 1


async def test_a_message_over_64_kb_is_closed_with_1009(node: RunningNode) -> None:
    async with socket(node) as client:
        await client.say("chat", id="1", **{**ASK, "task": "x" * 70_000})
        assert (await client.closed())[0] == 1009
    assert await node.metric('atp_ws_disconnects_total{code="1009",initiator="server"}') == 1


async def test_without_redis_a_node_is_its_own_fleet(database_url: str, model_server: Upstream) -> None:
    async with running(node_settings(database_url, "", model_server)) as node, socket(node, device="tablet") as client:
        stats = await online(node)
        assert (stats["online_users"], stats["nodes"], stats["degraded"]) == (1, 1, True)
        sent = (await node.http.post("/api/admin/broadcast", json={"message": "hi"})).json()
        assert (sent["recipients"], sent["degraded"]) == (1, True)
        heard = await client.hear("broadcast")
        assert heard["message"] == "hi"
        ticket = (await node.http.post("/api/v1/ws-tickets")).json()["ticket"]
        async with socket(node, key="", ticket=ticket, last_seq=client.ready["seq"]) as back:
            assert back.ready["resumed"] is True
            assert (await back.next())["seq"] == heard["seq"]


async def test_the_socket_of_a_revoked_key_is_closed_within_a_second(node: RunningNode) -> None:
    key = await node.new_key("chat")
    async with socket(node, key=key) as client, socket(node) as other:
        async with one_connection(node.dsn) as connection:
            key_hash = await issuing.revoke_key(connection, key[9:17])
        await node.parts.revoked(key_hash)
        assert await client.closed() == (4001, "the API key has ended")
        await other.say("ping", id="1")
        assert (await other.next())["id"] == "1"


async def test_tickets_and_keys_stand_in_no_log(node: RunningNode, capfd: pytest.CaptureFixture[str]) -> None:
    ticket = (await node.http.post("/api/v1/ws-tickets")).json()["ticket"]
    async with socket(node, key="", ticket=ticket) as client:
        await client.say("chat", id="1", **{**ASK, "task": "CANARY-PROMPT"})
        await client.hear("done")
    await refusal(node, key="", ticket=ticket)
    logged = "".join(capfd.readouterr())
    assert ticket not in logged
    assert node.key not in logged
    assert "CANARY-PROMPT" not in logged
