"""POST and DELETE /api/v1/presence/heartbeat, as a client without a socket uses them."""

from typing import Any

import httpx2
import pytest

from service.db.pool import one_connection
from service.keys import issuing
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream

HEARTBEAT = "/api/v1/presence/heartbeat"
ANDROID_PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36"
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1"


async def stats(node: RunningNode) -> dict[str, Any]:
    found: dict[str, Any] = (await node.http.get("/api/admin/stats/online-users")).json()
    return found


async def beat(node: RunningNode, body: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
    return await node.http.post(HEARTBEAT, json=body or {}, headers=headers)


async def key_of(node: RunningNode, user: str) -> str:
    async with one_connection(node.dsn) as connection:
        await issuing.create_user(connection, user, f"{user}@example.org")
    return await node.new_key("chat", user=user)


async def test_a_first_heartbeat_is_given_an_id_and_told_how_long_it_lasts(node: RunningNode) -> None:
    first = await beat(node)
    session_id = first.json()["session_id"]
    assert (first.status_code, first.json()) == (200, {"session_id": session_id, "expires_in_s": 60})
    assert len(session_id) == 16
    again = await beat(node, {"session_id": session_id})
    assert again.json() == {"session_id": session_id, "expires_in_s": 60}
    found = await stats(node)
    assert (found["online_users"], found["sessions"], found["sockets"]) == (1, 1, 0)


async def test_each_heartbeat_without_an_id_is_a_session_of_its_own(node: RunningNode) -> None:
    ids = {(await beat(node)).json()["session_id"] for _ in range(3)}
    assert len(ids) == 3
    found = await stats(node)
    assert (found["online_users"], found["sessions"]) == (1, 3)


@pytest.mark.parametrize(
    ("said", "user_agent", "device"),
    [
        (None, ANDROID_PHONE, "mobile"),
        (None, IPAD, "tablet"),
        (None, "curl/8.5.0", "unknown"),
        ("desktop", ANDROID_PHONE, "desktop"),
    ],
)
async def test_the_device_is_what_the_client_says_else_what_its_user_agent_tells(
    node: RunningNode, said: str | None, user_agent: str, device: str
) -> None:
    await beat(node, {"session_id": "phone", "device_type": said}, **{"user-agent": user_agent})
    assert {name: count for name, count in (await stats(node))["devices"].items() if count} == {device: 1}


async def test_two_users_may_have_the_same_id_and_end_only_their_own(node: RunningNode) -> None:
    ana, ben = {"x-api-key": await key_of(node, "ana")}, {"x-api-key": await key_of(node, "ben")}
    for headers in (ana, ben):
        await beat(node, {"session_id": "phone"}, **headers)
    assert (await stats(node))["online_users"] == 2
    assert (await node.http.delete(f"{HEARTBEAT}/phone", headers=ana)).status_code == 204
    assert (await stats(node))["online_users"] == 1
    await beat(node, {"session_id": "phone"}, **ben)
    assert (await stats(node))["sessions"] == 1


async def test_a_session_that_has_ended_or_never_was_is_ended_without_complaint(node: RunningNode) -> None:
    session_id = (await beat(node)).json()["session_id"]
    for name in (session_id, session_id, "nobody"):
        response = await node.http.delete(f"{HEARTBEAT}/{name}")
        assert (response.status_code, response.content) == (204, b"")
    assert (await stats(node))["sessions"] == 0


@pytest.mark.parametrize(
    ("session_id", "written"),
    [("tab/1", "tab/1"), ("tab/1", "tab%2F1"), ("a b?", "a%20b%3F"), ("caf\u00e9", "caf%C3%A9")],
)
async def test_an_id_with_a_slash_or_other_signs_can_be_ended(node: RunningNode, session_id: str, written: str) -> None:
    assert (await beat(node, {"session_id": session_id})).json()["session_id"] == session_id
    assert (await node.http.delete(f"{HEARTBEAT}/{written}")).status_code == 204
    assert (await stats(node))["sessions"] == 0


async def test_what_does_not_fit_is_422_and_nothing_is_counted(node: RunningNode) -> None:
    for body in (
        {"session_id": ""},
        {"session_id": "x" * 129},
        {"session_id": "two\nlines"},
        {"session_id": 7},
        {"client_id": ""},
        {"device_type": "fridge"},
        {"user_id": "ana"},
    ):
        response = await beat(node, body)
        assert (response.status_code, response.json()["type"]) == (422, "urn:atp:problem:invalid"), body
    for written in ("", "x" * 129, "%0A"):
        assert (await node.http.delete(f"{HEARTBEAT}/{written}")).status_code == 422, written
    assert (await stats(node))["sessions"] == 0


async def test_it_needs_a_key_with_the_scope_chat(node: RunningNode) -> None:
    assert (await beat(node, **{"x-api-key": await node.new_key("read")})).status_code == 403
    assert (await node.http.post(HEARTBEAT, json={}, headers={"x-api-key": ""})).status_code == 401


async def test_more_than_a_hundred_sessions_of_a_user_are_429(node: RunningNode) -> None:
    for number in range(100):
        assert (await beat(node, {"session_id": f"r{number}"})).status_code == 200
    refused = await beat(node)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert refused.json()["type"] == "urn:atp:problem:too-many"
    assert refused.json()["detail"] == "A user may have 100 REST sessions."
    assert (await beat(node, {"session_id": "r42"})).status_code == 200
    assert (await stats(node))["sessions"] == 100


async def test_without_redis_a_node_counts_heartbeats_by_itself(database_url: str, model_server: Upstream) -> None:
    async with running(node_settings(database_url, "", model_server)) as node:
        session_id = (await beat(node, {"device_type": "tablet"})).json()["session_id"]
        found = await stats(node)
        assert (found["online_users"], found["devices"]["tablet"], found["sockets"]) == (1, 1, 0)
        assert (found["nodes"], found["degraded"]) == (1, True)
        assert (await node.http.delete(f"{HEARTBEAT}/{session_id}")).status_code == 204
        assert (await stats(node))["online_users"] == 0
