"""GET and DELETE /api/v1/sessions, as the owner of conversations uses them."""

from urllib.parse import quote

import pytest

from service.db.pool import one_connection
from service.keys import issuing
from tests.nodes import RunningNode, node_settings, running
from tests.routes import tenants
from tests.servers import OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

SESSIONS = "/api/v1/sessions"
NOON = 1_700_000_000.0


async def key_of(node: RunningNode, user: str) -> tuple[str, dict[str, str]]:
    """A new user's id, and the headers of a key that may only chat."""
    async with one_connection(node.dsn) as connection:
        made = await issuing.create_user(connection, user, f"{user}@example.org")
    return made.id, {"x-api-key": await node.new_key("chat", user=user)}


async def hold(node: RunningNode, user_id: str, *session_ids: str) -> None:
    for number, session_id in enumerate(session_ids):
        await tenants.hold(node, user_id, session_id, f"task {number}", NOON + number)


async def test_a_list_shows_ones_own_newest_first(node: RunningNode) -> None:
    (ana, headers), (_, bens) = await key_of(node, "ana"), await key_of(node, "ben")
    await hold(node, ana, "s1", "s2")
    response = await node.http.get(SESSIONS, headers=headers)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    moments = {"created_at": "2023-11-14T22:13:21+00:00", "last_at": "2023-11-14T22:13:21+00:00"}
    assert response.json()["sessions"][0] == {"session_id": "s2", "title": "task 1", **moments, "messages": 2}
    assert [shown["session_id"] for shown in response.json()["sessions"]] == ["s2", "s1"]
    assert (response.json()["next_cursor"], response.json()["degraded"]) == (None, False)
    assert (await node.http.get(SESSIONS, headers=bens)).json()["sessions"] == []


async def test_a_list_is_turned_page_by_page(node: RunningNode) -> None:
    ana, headers = await key_of(node, "ana")
    await hold(node, ana, "s1", "s2", "s3")
    first = (await node.http.get(SESSIONS, params={"limit": 2}, headers=headers)).json()
    asked = {"limit": 2, "cursor": first["next_cursor"]}
    second = (await node.http.get(SESSIONS, params=asked, headers=headers)).json()
    assert [shown["session_id"] for shown in first["sessions"]] == ["s3", "s2"]
    assert ([shown["session_id"] for shown in second["sessions"]], second["next_cursor"]) == (["s1"], None)


@pytest.mark.parametrize("name", ["s1", "with/slash", "¿qué? & más #1", "a%2Fb"])
async def test_a_conversation_is_read_and_deleted_by_its_id(node: RunningNode, name: str) -> None:
    ana, headers = await key_of(node, "ana")
    await hold(node, ana, name)
    path = f"{SESSIONS}/{quote(name, safe='')}"
    response = await node.http.get(path, headers=headers)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    found = response.json()
    assert (found["session_id"], found["messages"]) == (name, 2)
    assert found["turns"] == [
        {"role": "user", "content": "task 0", "at": "2023-11-14T22:13:20+00:00"},
        {"role": "assistant", "agent": "reasoning", "content": "42", "at": "2023-11-14T22:13:20+00:00"},
    ]
    response = await node.http.delete(path, headers=headers)
    assert (response.status_code, response.content, response.headers["cache-control"]) == (204, b"", "no-store")
    for gone in (await node.http.get(path, headers=headers), await node.http.delete(path, headers=headers)):
        assert (gone.status_code, gone.json()["type"]) == (404, "urn:atp:problem:not-found")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/" + "x" * 129, 422),
        ("/a%00b", 422),
        ("/", 422),
        ("?limit=0", 422),
        ("?limit=101", 422),
        ("?cursor=x", 400),
        ("?color=red", 422),
    ],
)
async def test_what_makes_no_sense_is_refused(node: RunningNode, path: str, status: int) -> None:
    assert (await node.http.get(SESSIONS + path)).status_code == status


async def test_a_key_that_may_not_chat_reads_no_conversations(node: RunningNode) -> None:
    headers = {"x-api-key": await node.new_key("read")}
    answers = [
        await node.http.get(SESSIONS, headers=headers),
        await node.http.get(f"{SESSIONS}/s", headers=headers),
        await node.http.delete(f"{SESSIONS}/s", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


async def test_while_redis_is_away_nothing_fails_and_what_was_deleted_stays_so(
    database_url: str, own_valkey: OwnValkey, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        ana, headers = await key_of(node, "ana")
        await hold(node, ana, "kept", "gone")
        await own_valkey.kill()
        listed = (await node.http.get(SESSIONS, headers=headers)).json()
        assert (listed["sessions"], listed["degraded"]) == ([], True)
        assert (await node.http.delete(f"{SESSIONS}/gone", headers=headers)).status_code == 204
        assert (await node.http.get(f"{SESSIONS}/kept", headers=headers)).status_code == 404
        await own_valkey.restart()
        await eventually(lambda: back(node, headers), within_s=8)
        assert (await node.http.get(f"{SESSIONS}/gone", headers=headers)).status_code == 404


async def back(node: RunningNode, headers: dict[str, str]) -> bool:
    listed = (await node.http.get(SESSIONS, headers=headers)).json()
    return [shown["session_id"] for shown in listed["sessions"]] == ["kept"]


async def test_without_redis_the_node_itself_keeps_them(database_url: str, model_server: Upstream) -> None:
    async with running(node_settings(database_url, "", model_server)) as node:
        assert (await node.http.get(SESSIONS)).json() == {"sessions": [], "next_cursor": None, "degraded": True}
        assert (await node.http.delete(f"{SESSIONS}/s")).status_code == 404
