"""`/api/admin/users`: users made, found, changed and shut out; every change with its row in the audit trail."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.admin.audit import Actor, Audit
from service.db.pool import Database, one_connection
from service.errors import Forbidden
from service.keys import issuing, user_store
from service.routes.key_requests import UserChange
from service.routes.user_actions import UserActions
from service.settings import load
from service.telemetry.metrics import Metrics
from tests.keys.people import person, roomy
from tests.nodes import RunningNode, running
from tests.upstream import Upstream

USERS = "/api/admin/users"
AGENTS = "/api/v1/agents"
ROUNDS = 150
AUDIT = "SELECT action, target, details FROM admin_audit ORDER BY at"


@pytest.fixture
async def node(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    async with running(roomy(database_url, redis_url, model_server)) as started:
        yield started


async def refused(node: RunningNode, key: str) -> Any:
    response = await node.http.get(AGENTS, headers={"x-api-key": key})
    return response.json().get("reason") if response.status_code != 200 else None


async def test_a_user_is_made_and_shown(node: RunningNode) -> None:
    response = await node.http.post(USERS, json={"username": "ana", "email": "ana@example.org"})
    assert response.status_code == 201
    made = response.json()
    about = {"username": "ana", "email": "ana@example.org", "role": "user", "active": True}
    assert made == about | {"user_id": made["user_id"], "created_at": made["created_at"]}
    assert (await node.http.get(f"{USERS}/{made['user_id']}")).json() == made
    assert await node.rows(AUDIT) == [("create_user", "ana", {"role": "user"})]
    again = await node.http.post(USERS, json={"username": "ana", "email": "b@example.org"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:atp:problem:conflict")
    assert len(await node.rows(AUDIT)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"username": "a b", "email": "a@example.org"},
        {"username": "a\0", "email": "a@example.org"},
        {"username": "ana", "email": "nothing"},
        {"username": "ana", "email": "a\0@example.org"},
        {"username": "ana"},
        {"username": "ana", "email": "a@example.org", "role": "king"},
    ],
)
async def test_what_is_no_user_is_422(node: RunningNode, body: dict[str, str]) -> None:
    assert (await node.http.post(USERS, json=body)).status_code == 422


async def test_users_are_listed_newest_first_and_searched_by_their_beginning(node: RunningNode) -> None:
    for name in ("ana", "Anton", "ben", "a_b"):
        await person(node, name)

    async def names(**query: Any) -> list[str]:
        return [user["username"] for user in (await node.http.get(USERS, params=query)).json()["users"]]

    assert await names() == ["a_b", "ben", "Anton", "ana", "tester"]
    assert await names(query="AN") == ["Anton", "ana"]
    assert await names(query="ben@example") == ["ben"]
    assert await names(query="a_") == ["a_b"]
    assert await names(query="%") == []
    page = (await node.http.get(USERS, params={"limit": 3})).json()
    assert await names(cursor=page["next_cursor"]) == ["ana", "tester"]


async def test_an_id_with_a_slash_is_found_and_online_is_still_a_list(node: RunningNode) -> None:
    await person(node, "ana")
    async with one_connection(node.dsn) as connection:
        await connection.execute("ALTER TABLE api_keys DROP CONSTRAINT api_keys_user_id_fkey")
        await connection.execute("UPDATE users SET id = 'tenant/ana' WHERE username = 'ana'")
    assert (await node.http.get(f"{USERS}/tenant%2Fana")).json()["username"] == "ana"
    assert (await node.http.patch(f"{USERS}/tenant/ana", json={"active": False})).json()["active"] is False
    assert "users" in (await node.http.get(f"{USERS}/online")).json()
    assert (await node.http.get(f"{USERS}/nobody")).status_code == 404


async def test_who_is_shut_out_comes_back_with_the_same_keys(node: RunningNode) -> None:
    user_id, ana = await person(node, "ana")
    key = ana["x-api-key"]
    assert await refused(node, key) is None
    assert (await node.http.patch(f"{USERS}/{user_id}", json={"active": False})).json()["active"] is False
    assert await refused(node, key) == "inactive_user"
    assert (await node.http.patch(f"{USERS}/{user_id}", json={"active": True})).json()["active"] is True
    assert await refused(node, key) is None
    assert await node.rows(AUDIT) == [
        ("change_user", user_id, {"active": False}),
        ("change_user", user_id, {"active": True}),
    ]


async def test_the_scope_admin_counts_only_with_the_role(node: RunningNode) -> None:
    user_id, ana = await person(node, "ana", "read", "admin", role="admin")
    assert (await node.http.get(USERS, headers=ana)).status_code == 200
    await node.http.patch(f"{USERS}/{user_id}", json={"role": "user"})
    response = await node.http.get(USERS, headers=ana)
    assert (response.status_code, response.json()["reason"]) == (403, "scope")
    assert await refused(node, ana["x-api-key"]) is None  # what else the key may do it still may
    await node.http.patch(f"{USERS}/{user_id}", json={"role": "admin"})
    assert (await node.http.get(USERS, headers=ana)).status_code == 200


@pytest.mark.parametrize("body", [{"active": False}, {"role": "user"}, {"active": False, "role": "admin"}])
async def test_admins_cannot_shut_themselves_out(node: RunningNode, body: dict[str, Any]) -> None:
    ((user_id,),) = await node.rows("SELECT id FROM users")
    assert (await node.http.patch(f"{USERS}/{user_id}", json=body)).status_code == 422
    assert (await node.http.patch(f"{USERS}/{user_id}", json={"active": True})).status_code == 200


@pytest.mark.parametrize("names", [("ana", "ben"), ("ana", "ben", "cleo")], ids=["each other", "in a ring"])
async def test_admins_who_shut_each_other_out_at_once_never_all_succeed(
    database_url: str, names: tuple[str, ...]
) -> None:
    takes = [UserChange(active=False), UserChange(role="user"), UserChange(active=False, role="admin")]
    async with Database(load(database_url=database_url, db_pool_size=3), Metrics()) as db:
        actions = UserActions(db.connection, Audit(db), nobody_told)
        async with db.connection("test") as connection:
            users = [await issuing.create_user(connection, name, f"{name}@x.org", "admin") for name in names]
        for number in range(ROUNDS):
            asked = takes[number % 3]
            pairs = zip(users, [*users[1:], users[0]], strict=True)
            outcomes = await asyncio.gather(
                *(actions.change(Actor(by.id, "x", "x"), other.id, asked) for by, other in pairs),
                return_exceptions=True,
            )
            async with db.connection("test") as connection:
                left = await user_store.lock_admins(connection)
                await connection.execute("UPDATE users SET role = 'admin', active = true")
            refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            assert {type(error) for error in refused} <= {Forbidden}
            assert (len(refused) >= 1, len(left)) == (True, len(refused))


async def nobody_told(*key_hashes: bytes) -> None:
    """There is no other node."""


async def test_a_change_of_nobody_or_of_nothing_leaves_no_trace(node: RunningNode) -> None:
    assert (await node.http.patch(f"{USERS}/nobody", json={"active": False})).status_code == 404
    assert (await node.http.patch(f"{USERS}/nobody", json={})).status_code == 422
    assert await node.rows(AUDIT) == []


async def test_users_need_the_scope_admin(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    for method, path in (("POST", USERS), ("GET", USERS), ("GET", f"{USERS}/x"), ("PATCH", f"{USERS}/x")):
        assert (await node.http.request(method, path, json={}, headers=ana)).status_code == 403
