"""`/api/admin`: what administrators see and do; nothing is done without its row in the audit trail."""

import uuid
from collections.abc import AsyncIterator

import httpx2
import psycopg
import pytest

from service.errors import StateUnavailable
from service.live import messages
from service.live.messages import Disconnect, Drain, Push
from tests.routes.admin_desk import BROADCAST, CARDS, Desk, Json, open_desk, table
from tests.servers import OwnPostgres


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as opened:
        yield opened


def faulty_field(response: httpx2.Response) -> str:
    """The field that the 422 complains of first; empty for the body as a whole."""
    assert response.status_code == 422
    return str(response.json()["errors"][0]["field"])


async def test_every_operation_needs_the_scope_admin(desk: Desk) -> None:
    chatter = {"x-api-key": await desk.key("ana", "chat", "read", "keys")}
    for operation in table(desk.routes, desk.block_routes):
        path = operation.path.replace("{user_id:path}", "ana").replace("{kind}/{subject:path}", "user/ana")
        response = await desk.http.request(operation.method, path, headers=chatter, json={})
        assert (response.status_code, response.json()["reason"]) == (403, "scope"), operation.path
    assert desk.bus.said == []


async def test_the_online_users_are_counted(desk: Desk) -> None:
    response = await desk.http.get("/api/admin/stats/online-users")
    assert response.json() == {"online_users": 9, "sockets": 12, "degraded": False}


async def test_the_system_is_this_nodes_and_the_fleet_every_nodes_card(desk: Desk) -> None:
    found = (await desk.http.get("/api/admin/stats/system")).json()
    assert set(found) == {"node", "process", "machine", "database", "redis", "fleet", "degraded"}
    assert (found["node"], found["fleet"], found["degraded"]) == ("node-1", CARDS, False)
    assert found["database"] == {"idle": 1, "used": 0, "max": 3, "pending": 0}
    assert found["redis"] == {"used_memory_bytes": 1}
    assert found["process"]["rss_bytes"] > 0


async def test_without_redis_the_rest_is_still_shown(desk: Desk) -> None:
    def away() -> Json:
        raise StateUnavailable()

    desk.redis = away
    found = (await desk.http.get("/api/admin/stats/system")).json()
    assert (found["redis"], found["fleet"]) == (None, CARDS)


async def test_what_was_counted_on_this_node_alone_is_marked(desk: Desk) -> None:
    desk.fleet.degraded = True
    found = (await desk.http.get("/api/admin/stats/dashboard")).json()
    assert [found[part]["degraded"] for part in ("online_users", "system", "websocket")] == [True, True, True]
    assert (await desk.http.get("/api/admin/users/online")).json()["degraded"]
    counted = await desk.http.post(BROADCAST, json={"message": "hello"})
    assert (counted.json()["recipients"], counted.json()["degraded"]) == (12, True)
    elsewhere = await desk.http.post("/api/admin/users/ana/disconnect", json={"session_id": "far"})
    here = await desk.http.post("/api/admin/users/ana/disconnect", json={"session_id": "here"})
    assert (elsewhere.json()["degraded"], here.json()["degraded"]) == (True, False)


async def test_a_node_that_cannot_be_known_is_404_and_says_so(desk: Desk) -> None:
    desk.fleet.degraded = True
    response = await desk.http.post("/api/admin/drain?node=node-9")
    assert (response.status_code, response.json()["degraded"]) == (404, True)


async def test_the_sockets_are_counted_by_device_and_by_node(desk: Desk) -> None:
    assert (await desk.http.get("/api/admin/stats/websocket")).json() == {
        "sockets": 12,
        "devices": {"mobile": 3, "tablet": 2, "desktop": 7, "unknown": 0},
        "node": {"node": "node-1", "sockets": 7, "users": 4},
        "nodes": CARDS,
        "degraded": False,
    }


async def test_the_dashboard_is_all_of_it(desk: Desk) -> None:
    found = (await desk.http.get("/api/admin/stats/dashboard")).json()
    assert set(found) == {"at", "node", "online_users", "system", "websocket"}
    assert found["online_users"]["online_users"] == 9
    assert found["websocket"]["sockets"] == 12
    assert found["system"]["machine"]["cpu_count"] > 0


async def test_the_users_online_come_in_pages(desk: Desk) -> None:
    first = (await desk.http.get("/api/admin/users/online", params={"limit": 2})).json()
    ana = {"user_id": "ana", "sockets": 3, "rest_sessions": 0}
    ben = {"user_id": "ben", "sockets": 0, "rest_sessions": 1}
    assert first == {"users": [ana, ben], "next_cursor": "after-2", "degraded": False}
    last = (await desk.http.get("/api/admin/users/online", params={"cursor": "after-2"})).json()
    assert last == {"users": [], "next_cursor": None, "degraded": False}


async def test_a_malformed_page_is_422_and_names_the_field(desk: Desk) -> None:
    for query in ("limit=0", "limit=1001", "limit=many", f"cursor={'x' * 513}", "page=2"):
        response = await desk.http.get(f"/api/admin/users/online?{query}")
        assert faulty_field(response) == query.partition("=")[0]


async def test_a_broadcast_is_audited_and_published(desk: Desk) -> None:
    body = {"message": "Back at ten.", "title": "Maintenance", "data": {"link": None}, "expires_s": 30}
    response = await desk.http.post(BROADCAST, json=body, headers={"x-request-id": "request-1"})
    assert response.status_code == 202
    answer = response.json()
    action_id = answer.pop("id")
    assert answer == {
        "recipients": 12,
        "audience": "everyone",
        "dry_run": False,
        "degraded": False,
        "expires_at": "2027-01-15T08:00:30+00:00",
        "repeated": False,
    }
    payload = {"message": "Back at ten.", "title": "Maintenance", "data": {"link": None}}
    assert desk.bus.said == [Push(id=action_id, payload=payload, expires_at_ms=1_800_000_030_000)]
    details = {"message": "Back at ten.", "title": "Maintenance", "expires_at_ms": 1_800_000_030_000}
    row = (uuid.UUID(action_id), "root", "broadcast", "everyone", details, "request-1", 32)
    assert desk.rows("id, user_id, action, target, details, request_id, length(body_digest)") == [row]
    key_prefix = desk.http.headers["x-api-key"][9:17]
    assert desk.rows("key_prefix") == [(key_prefix,)]


@pytest.mark.parametrize(
    ("audience", "recipients"),
    [({"users": ["ana", "ana", "ben"]}, 3), ({"devices": ["tablet", "mobile"]}, 5)],
    ids=["users", "devices"],
)
async def test_a_broadcast_reaches_some_users_or_devices(desk: Desk, audience: Json, recipients: int) -> None:
    answer = (await desk.http.post(BROADCAST, json={"message": "hello", **audience})).json()
    name, values = next(iter(audience.items()))
    assert (answer["audience"], answer["recipients"]) == (name, recipients)
    assert getattr(desk.bus.said[0], name) == set(values)
    assert desk.rows("target, details") == [
        (name, {"message": "hello", name: values, "expires_at_ms": 1_800_000_060_000})
    ]


UNFIT_BROADCASTS: list[tuple[Json, str]] = [
    ({"message": ""}, "message"),
    ({"message": "x" * 8001}, "message"),
    ({"message": "a\0b"}, "message"),
    ({"title": "x" * 201}, "title"),
    ({"title": "\0"}, "title"),
    ({"users": []}, "users"),
    ({"users": ["x"] * 1001}, "users"),
    ({"users": ["two\nlines"]}, "users.0"),
    ({"users": ["x" * 129]}, "users.0"),
    ({"devices": ["fridge"]}, "devices.0"),
    ({"users": ["ana"], "devices": ["mobile"]}, ""),
    ({"expires_s": 0}, "expires_s"),
    ({"expires_s": 301}, "expires_s"),
    ({"data": {"long": "x" * 16_384}}, ""),
    ({"message": "\N{GRINNING FACE}" * 8000}, ""),
    ({"extra": 1}, "extra"),
]


async def test_a_broadcast_that_does_not_fit_is_422_and_nothing_is_done(desk: Desk) -> None:
    for change, field in UNFIT_BROADCASTS:
        response = await desk.http.post(BROADCAST, json={"message": "hello", **change})
        assert faulty_field(response) == field, change
    assert (desk.bus.said, desk.rows("id")) == ([], [])


async def test_data_is_taken_as_deep_as_a_message_can_carry_it(desk: Desk) -> None:
    def nested(depth: int) -> bytes:
        return b'{"message": "hello", "data": ' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)

    json_type = {"content-type": "application/json"}
    statuses = [
        (await desk.http.post(BROADCAST, content=nested(depth), headers=json_type)).status_code
        for depth in (1, 100, 198, 199, 5000)
    ]
    assert statuses == [202, 202, 202, 422, 400]
    assert [messages.decode(messages.encode(said)) for said in desk.bus.said] == desk.bus.said


async def test_a_message_that_names_too_many_users_is_told_how_long_one_may_be(desk: Desk) -> None:
    users = [f"{number:036}" for number in range(500)]
    response = await desk.http.post(BROADCAST, json={"message": "hello", "users": users})
    assert response.json()["errors"] == [
        {"field": "", "message": "a message may have at most 16384 bytes as JSON, with the users it names"}
    ]


async def test_a_number_that_json_does_not_have_is_422(desk: Desk) -> None:
    body, json_type = b'{"message": "hello", "data": {"x": NaN}}', {"content-type": "application/json"}
    assert (await desk.http.post(BROADCAST, content=body, headers=json_type)).status_code == 422


async def test_a_dry_run_only_counts(desk: Desk) -> None:
    response = await desk.http.post(
        BROADCAST, json={"message": "hello", "dry_run": True}, headers={"idempotency-key": "k1"}
    )
    assert response.json() == {
        "id": None,
        "recipients": 12,
        "audience": "everyone",
        "dry_run": True,
        "degraded": False,
        "expires_at": None,
        "repeated": False,
    }
    assert (desk.bus.said, desk.rows("id")) == ([], [])


async def test_the_same_key_again_says_the_same_message_again(desk: Desk) -> None:
    headers = {"idempotency-key": "k1"}
    first = await desk.http.post(BROADCAST, json={"message": "hello", "data": {"a": 1, "b": 2}}, headers=headers)
    again = await desk.http.post(BROADCAST, json={"data": {"b": 2, "a": 1}, "message": "hello"}, headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json() | {"repeated": True}
    assert len(desk.bus.said) == 2
    assert desk.bus.said[0] == desk.bus.said[1]
    assert desk.rows("idempotency_key") == [("k1",)]


async def test_the_end_of_a_repeated_broadcast_is_the_first_ones(desk: Desk) -> None:
    headers = {"idempotency-key": "k1"}
    first = await desk.http.post(BROADCAST, json={"message": "hello"}, headers=headers)
    with psycopg.connect(desk.dsn) as connection:
        connection.execute("UPDATE admin_audit SET details = details || '{\"expires_at_ms\": 1799999999000}'")
    again = await desk.http.post(BROADCAST, json={"message": "hello"}, headers=headers)
    assert (again.json()["id"], again.json()["expires_at"]) == (first.json()["id"], "2027-01-15T07:59:59+00:00")
    assert isinstance(desk.bus.said[1], Push)
    assert desk.bus.said[1].expires_at_ms == 1_799_999_999_000


async def test_another_body_under_the_same_key_is_409(desk: Desk) -> None:
    headers = {"idempotency-key": "k1"}
    await desk.http.post(BROADCAST, json={"message": "hello"}, headers=headers)
    response = await desk.http.post(BROADCAST, json={"message": "goodbye"}, headers=headers)
    assert (response.status_code, response.json()["type"]) == (409, "urn:atp:problem:conflict")
    assert len(desk.bus.said) == 1


async def test_a_key_that_is_none_is_422(desk: Desk) -> None:
    for key in (b"", b"x" * 129, b"caf\xe9", b"a\tb"):
        headers = [(b"Idempotency-Key", key)]
        response = await desk.http.post(BROADCAST, json={"message": "hello"}, headers=headers)
        assert faulty_field(response) == "Idempotency-Key", key


async def test_what_reached_this_node_only_is_called_degraded(desk: Desk) -> None:
    desk.bus.degraded = desk.fleet.degraded = True
    assert (await desk.http.post(BROADCAST, json={"message": "hello"})).json()["degraded"]
    assert (await desk.http.post(BROADCAST, json={"message": "hello", "dry_run": True})).json()["degraded"]
    assert (await desk.http.post("/api/admin/drain")).json()["degraded"]
    path = "/api/admin/users/ana/disconnect"
    assert (await desk.http.post(path, json={})).json()["degraded"]
    assert (await desk.http.post(path, json={"dry_run": True})).json()["degraded"]


async def test_a_user_is_disconnected(desk: Desk) -> None:
    response = await desk.http.post("/api/admin/users/ana/disconnect", json={"reason": "maintenance"})
    answer = response.json()
    action_id = answer.pop("id")
    assert (response.status_code, answer) == (
        200,
        {"user_id": "ana", "sockets": 3, "blocked_until": None, "dry_run": False, "degraded": False},
    )
    assert desk.bus.said == [Disconnect(id=action_id, user_id="ana", reason="maintenance")]
    assert desk.rows("id::text, action, target, details") == [
        (action_id, "disconnect", "ana", {"reason": "maintenance"})
    ]


@pytest.mark.parametrize(("user", "session", "sockets"), [("ana", "here", 1), ("ana", "far", 1), ("ben", "far", 0)])
async def test_one_session_is_disconnected(desk: Desk, user: str, session: str, sockets: int) -> None:
    response = await desk.http.post(f"/api/admin/users/{user}/disconnect", json={"session_id": session})
    assert response.json()["sockets"] == sockets
    assert desk.bus.said == [Disconnect(id=response.json()["id"], user_id=user, session_id=session)]


async def test_a_user_is_blocked_before_the_sockets_are_closed(desk: Desk) -> None:
    response = await desk.http.post("/api/admin/users/ana/disconnect", json={"block_s": 60, "reason": "spam"})
    answer = response.json()
    [(until, reason, blocked_by)] = desk.rows("until, reason, blocked_by", "blocks")
    assert (until.isoformat(), reason, blocked_by) == (answer["blocked_until"], "spam", "root")
    assert desk.rows("details, (SELECT until FROM blocks) - at = interval '60 s'") == [
        ({"block_s": 60, "reason": "spam"}, True)
    ]
    assert desk.bus.said == [
        messages.Blocked(id=f"{answer['id']}:block", subject="ana", until_s=until.timestamp(), reason="spam"),
        Disconnect(id=answer["id"], user_id="ana", reason="spam"),
    ]


async def test_a_blocked_user_gets_403_until_the_block_is_lifted(desk: Desk) -> None:
    ana = {"x-api-key": await desk.key("ana", "admin")}
    await desk.http.post("/api/admin/users/ana/disconnect", json={"block_s": 60})
    await desk.blocks.load()
    refused = await desk.http.get("/api/admin/stats/online-users", headers=ana)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:atp:problem:blocked")
    assert refused.headers["retry-after"] == "60"
    await desk.http.delete("/api/admin/users/ana/block")
    await desk.blocks.load()
    assert (await desk.http.get("/api/admin/stats/online-users", headers=ana)).status_code == 200


async def test_lifting_a_block_is_audited_and_told(desk: Desk) -> None:
    await desk.http.post("/api/admin/users/ana/disconnect", json={"block_s": 60})
    response = await desk.http.delete("/api/admin/users/ana/block")
    action_id = response.json()["id"]
    assert response.json() == {"id": action_id, "user_id": "ana", "degraded": False}
    assert desk.bus.said[2:] == [messages.Blocked(id=f"{action_id}:block", subject="ana", until_s=0)]
    assert desk.rows("action, target") == [("disconnect", "ana"), ("lift_block", "ana")]
    assert desk.rows("subject", "blocks") == []


async def test_lifting_no_block_is_404_and_leaves_no_trace(desk: Desk) -> None:
    assert (await desk.http.delete("/api/admin/users/ana/block")).status_code == 404
    assert (desk.bus.said, desk.rows("id")) == ([], [])


async def test_a_dry_run_of_a_block_blocks_nobody(desk: Desk) -> None:
    response = await desk.http.post("/api/admin/users/ana/disconnect", json={"block_s": 60, "dry_run": True})
    expected = {"id": None, "user_id": "ana", "sockets": 3, "blocked_until": None, "dry_run": True, "degraded": False}
    assert response.json() == expected
    assert (desk.bus.said, desk.rows("id"), desk.rows("subject", "blocks")) == ([], [], [])


async def test_a_disconnect_that_does_not_fit_is_422(desk: Desk) -> None:
    unfit: list[tuple[Json, str]] = [
        ({"block_s": 60, "session_id": "here"}, ""),
        ({"block_s": 0}, "block_s"),
        ({"block_s": 2_592_001}, "block_s"),
        ({"reason": "x" * 101}, "reason"),
        ({"reason": "a\0"}, "reason"),
        ({"session_id": ""}, "session_id"),
        ({"user_id": "ana"}, "user_id"),
    ]
    for body, field in unfit:
        assert faulty_field(await desk.http.post("/api/admin/users/ana/disconnect", json=body)) == field, body
    assert (desk.bus.said, desk.rows("id")) == ([], [])


async def test_any_printable_user_id_can_be_named(desk: Desk) -> None:
    ids = {
        "a%20b": "a b",
        "acme%2Fana": "acme/ana",
        "acme/ana": "acme/ana",
        "a%2Fdisconnect": "a/disconnect",
        "50%25": "50%",
        "%C3%A9lo%C3%AFse": "\u00e9lo\u00efse",
        "who%3F%23": "who?#",
    }
    for written, user_id in ids.items():
        answer = (await desk.http.post(f"/api/admin/users/{written}/disconnect", json={})).json()
        assert answer["user_id"] == user_id
    assert desk.rows("target") == [(user_id,) for user_id in ids.values()]


async def test_a_user_id_that_is_none_is_422(desk: Desk) -> None:
    for written in ("", "%00", "a%09b", "x" * 129):
        assert faulty_field(await desk.http.post(f"/api/admin/users/{written}/disconnect", json={})) == "user_id"


async def test_a_node_is_drained_and_the_draining_ended(desk: Desk) -> None:
    begun = await desk.http.post("/api/admin/drain?node=node-2&rate=0.5e2")
    ended = await desk.http.delete("/api/admin/drain?node=node-2")
    own = await desk.http.post("/api/admin/drain")
    assert [response.status_code for response in (begun, ended, own)] == [202, 202, 202]
    expected = {"id": begun.json()["id"], "node": "node-2", "rate": 50, "degraded": False}
    assert begun.json() == expected
    within_ms = 1_800_000_060_000
    assert desk.bus.said == [
        Drain(id=begun.json()["id"], node="node-2", rate=50, expires_at_ms=within_ms),
        Drain(id=ended.json()["id"], node="node-2", rate=0, expires_at_ms=within_ms),
        Drain(id=own.json()["id"], node="node-1", rate=200, expires_at_ms=within_ms),
    ]
    assert desk.rows("action, target, details->>'rate'") == [
        ("drain", "node-2", "50.0"),
        ("drain", "node-2", "0.0"),
        ("drain", "node-1", "200.0"),
    ]


async def test_a_node_may_be_named_in_the_body_too(desk: Desk) -> None:
    for query, body in (
        ("", {"node": "node-2", "rate": 9}),
        ("?node=node-2&rate=9", {}),
        ("?rate=9&node=x", {"node": "node-2"}),
    ):
        answer = (await desk.http.post(f"/api/admin/drain{query}", json=body)).json()
        assert (answer["node"], answer["rate"]) == ("node-2", 9)
    assert (await desk.http.request("DELETE", "/api/admin/drain", json={"node": "node-2"})).json()["node"] == "node-2"
    assert (await desk.http.post("/api/admin/drain", json={"nodes": "node-2"})).status_code == 422


async def test_an_unknown_node_is_404_and_the_known_ones_are_named(desk: Desk) -> None:
    response = await desk.http.post("/api/admin/drain?node=node-9")
    assert (response.status_code, response.json()["known"]) == (404, ["node-1", "node-2"])
    assert (desk.bus.said, desk.rows("id")) == ([], [])


async def test_a_malformed_drain_is_422(desk: Desk) -> None:
    for query in ("rate=0.5", "rate=10001", "rate=nan", "rate=inf", "node=", "nodes=node-2"):
        assert faulty_field(await desk.http.post(f"/api/admin/drain?{query}")) == query.partition("=")[0]


async def test_what_cannot_be_audited_is_503_and_not_done(own_postgres: OwnPostgres) -> None:
    async with open_desk(own_postgres.dsn) as desk:
        assert (await desk.http.post(BROADCAST, json={"message": "hello"})).status_code == 202
        await own_postgres.kill()
        for method, path, body in (
            ("POST", BROADCAST, {"message": "hello"}),
            ("POST", "/api/admin/users/ana/disconnect", {"block_s": 60}),
            ("DELETE", "/api/admin/users/ana/block", None),
            ("POST", "/api/admin/drain", None),
        ):
            response = await desk.http.request(method, path, json=body)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1"), path
        assert len(desk.bus.said) == 1
        assert (await desk.http.get("/api/admin/stats/online-users")).status_code == 200
