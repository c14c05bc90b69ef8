"""Blocking keys, users and addresses over `/api/admin/blocks`, with all that must not be possible."""

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from service.live import messages
from tests.live.clients import refusal, socket
from tests.nodes import RunningNode, node_settings, running
from tests.routes.admin_desk import Desk, Json, open_desk
from tests.upstream import Upstream

BLOCKS = "/api/admin/blocks"
MODELS = "/api/v1/models"


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as opened:
        yield opened


async def test_a_block_is_audited_stored_and_told(desk: Desk) -> None:
    body = {"kind": "address", "subject": "2001:DB8:0::/32", "for_s": 60, "reason": "scan"}
    response = await desk.http.post(BLOCKS, json=body)
    answer = response.json()
    assert response.status_code == 201
    assert {name: answer[name] for name in ("kind", "subject", "degraded")} == {
        "kind": "address",
        "subject": "2001:db8::/32",
        "degraded": False,
    }
    [(kind, subject, until, reason, by)] = desk.rows("kind, subject, until, reason, blocked_by", "blocks")
    assert (kind, subject, until.isoformat(), reason, by) == (
        *("address", "2001:db8::/32", answer["until"], "scan", "root"),
    )
    details = {"kind": "address", "for_s": 60, "reason": "scan"}
    assert desk.rows("action, target, details") == [("block", "2001:db8::/32", details)]
    until_s = datetime.fromisoformat(answer["until"]).timestamp()
    assert desk.bus.said == [
        messages.Blocked(id=answer["id"], blocked="address", subject="2001:db8::/32", until_s=until_s, reason="scan")
    ]


async def test_lifting_is_audited_and_told(desk: Desk) -> None:
    await desk.http.post(BLOCKS, json={"kind": "key", "subject": "abcd1234", "for_s": 60})
    answer = (await desk.http.delete(f"{BLOCKS}/key/abcd1234")).json()
    assert (answer["kind"], answer["subject"]) == ("key", "abcd1234")
    assert desk.rows("action, target, details")[1:] == [("lift_block", "abcd1234", {"kind": "key"})]
    assert desk.bus.said[1:] == [messages.Blocked(id=answer["id"], blocked="key", subject="abcd1234", until_s=0)]
    assert desk.rows("subject", "blocks") == []


async def test_a_network_is_lifted_by_any_of_its_forms(desk: Desk) -> None:
    await desk.http.post(BLOCKS, json={"kind": "address", "subject": "192.0.2.0/24", "for_s": 60})
    assert (await desk.http.delete(f"{BLOCKS}/address/192.0.2.0/24")).status_code == 200
    await desk.http.post(BLOCKS, json={"kind": "address", "subject": "2001:db8::1", "for_s": 60})
    assert (await desk.http.delete(f"{BLOCKS}/address/2001:db8:0:0::1")).status_code == 200
    await desk.http.post(BLOCKS, json={"kind": "address", "subject": "::ffff:10.0.0.0/104", "for_s": 60})
    assert desk.rows("subject", "blocks") == [("10.0.0.0/8",)]
    assert (await desk.http.delete(f"{BLOCKS}/address/::ffff:10.0.0.0/104")).status_code == 200


async def test_lifting_no_block_is_404_and_leaves_no_trace(desk: Desk) -> None:
    response = await desk.http.delete(f"{BLOCKS}/user/ana")
    assert (response.status_code, response.json()["detail"]) == (404, "This user is not blocked.")
    assert desk.rows("id") == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "key", "subject": "short", "for_s": 60}, "subject must be the 8 characters of a key's prefix"),
        ({"kind": "address", "subject": "home", "for_s": 60}, "subject must be an address, or a network such as"),
        ({"kind": "address", "subject": "192.0.2.1/24", "for_s": 60}, "subject must be an address, or a network"),
        ({"kind": "address", "subject": "::/0", "for_s": 60}, "subject must be less wide: it has ::ffff:0:0/96 in it"),
        ({"kind": "user", "subject": "", "for_s": 60}, "at least 1 character"),
        ({"kind": "planet", "subject": "x", "for_s": 60}, "Input should be 'key', 'user' or 'address'"),
        ({"kind": "user", "subject": "ana", "for_s": 2_592_001}, "less than or equal to 2592000"),
        ({"kind": "user", "subject": "ana", "for_s": 0}, "greater than or equal to 1"),
    ],
)
async def test_a_block_that_does_not_fit_is_422(desk: Desk, body: Json, said: str) -> None:
    response = await desk.http.post(BLOCKS, json=body)
    assert response.status_code == 422
    assert said in response.json()["errors"][0]["message"]
    assert desk.rows("id") == []


async def test_nobody_can_keep_themselves_out(desk: Desk) -> None:
    own = desk.http.headers["x-api-key"][9:17]
    everybody = [("key", own), ("user", "root"), ("address", "127.0.0.1"), ("address", "0.0.0.0/0")]
    everybody.append(("address", "::ffff:127.0.0.0/104"))
    for kind, subject in everybody:
        response = await desk.http.post(BLOCKS, json={"kind": kind, "subject": subject, "for_s": 60})
        assert response.status_code == 422
        assert response.json()["detail"].startswith(f"You cannot block your own {kind}")
    assert desk.rows("id") == []


async def test_blocks_in_force_are_listed_page_by_page(desk: Desk) -> None:
    for kind, subject in (("user", "cleo"), ("key", "abcd1234"), ("user", "ben:1"), ("address", "192.0.2.1")):
        await desk.http.post(BLOCKS, json={"kind": kind, "subject": subject, "for_s": 60, "reason": "why"})
    first = (await desk.http.get(BLOCKS, params={"limit": 3})).json()
    assert [(b["kind"], b["subject"], b["reason"], b["blocked_by"]) for b in first["blocks"]] == [
        ("address", "192.0.2.1", "why", "root"),
        ("key", "abcd1234", "why", "root"),
        ("user", "ben:1", "why", "root"),
    ]
    second = (await desk.http.get(BLOCKS, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert ([b["subject"] for b in second["blocks"]], second["next_cursor"]) == (["cleo"], None)
    assert (await desk.http.get(BLOCKS, params={"cursor": "nonsense"})).status_code == 400


async def test_a_blocked_key_gets_403_and_its_socket_is_closed(node: RunningNode) -> None:
    key = await node.new_key("chat", "read")
    async with socket(node, key) as client:
        body = {"kind": "key", "subject": key[9:17], "for_s": 60, "reason": "leaked"}
        assert (await node.http.post(BLOCKS, json=body)).status_code == 201
        assert await client.closed() == (4003, "leaked")
    response = await node.http.get(MODELS, headers={"x-api-key": key})
    assert (response.status_code, response.json()["type"]) == (403, "urn:atp:problem:blocked")
    assert (response.json()["detail"], response.json()["blocked"]) == ("leaked", "key")
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert (await node.http.get(MODELS)).status_code == 200  # another key of the same user
    assert await node.metric('atp_blocked_requests_total{reason="key"}') == 1
    await node.http.delete(f"{BLOCKS}/key/{key[9:17]}")
    assert await allowed(node, key)


async def allowed(node: RunningNode, key: str) -> bool:
    return (await node.http.get(MODELS, headers={"x-api-key": key})).status_code == 200


@pytest.fixture
async def behind_proxy(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    settings = node_settings(database_url, redis_url, model_server, trusted_proxies="127.0.0.1")
    async with running(settings) as started:
        yield started


async def test_a_blocked_network_gets_403_whatever_it_brings_and_its_sockets_are_closed(
    behind_proxy: RunningNode,
) -> None:
    node, inside = behind_proxy, {"x-forwarded-for": "192.0.2.77"}
    async with socket(node, headers=inside) as client, socket(node) as other:
        body = {"kind": "address", "subject": "192.0.2.0/24", "for_s": 60}
        assert (await node.http.post(BLOCKS, json=body)).status_code == 201
        assert (await client.closed())[0] == 4003
        await other.say("ping")
        assert (await other.hear("pong"))["type"] == "pong"
    for headers in (inside, inside | {"x-api-key": "nonsense"}):
        response = await node.http.get(MODELS, headers=headers)
        assert (response.status_code, response.json()["blocked"]) == (403, "address")
    assert (await refusal(node, headers=inside))[0] == 403
    assert (await node.http.get(MODELS, headers={"x-forwarded-for": "192.0.3.1"})).status_code == 200
    assert await node.metric('atp_blocked_requests_total{reason="address"}') == 3
