"""`/api/v1/keys`: nobody gets more than they hold, and nobody sees another's keys."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.db.pool import Database
from service.keys.revocations import MemoryRevocations, Revocations
from service.keys.verifier import Identity, KeyVerifier
from service.settings import load
from service.state.failover import Failover
from service.telemetry.metrics import Metrics
from tests.keys.people import generate, person, roomy
from tests.nodes import RunningNode, running
from tests.upstream import Upstream

KEYS, GENERATE = "/api/v1/keys", "/api/v1/keys/generate"
AGENTS = "/api/v1/agents"
Headers = dict[str, str]


@pytest.fixture
async def node(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    async with running(roomy(database_url, redis_url, model_server, keys_per_user=3)) as started:
        yield started


async def identity(node: RunningNode, key: str) -> Identity:
    """As a node that has never seen the key verifies it."""
    async with Database(load(database_url=node.dsn, db_pool_size=1), Metrics()) as db:
        return await KeyVerifier(db, Failover[Revocations](None, None, MemoryRevocations())).verify(key)


def own(made: Any) -> Headers:
    return {"x-api-key": made["key"]}


async def states(node: RunningNode, headers: Headers) -> dict[str, str]:
    keys = (await node.http.get(KEYS, headers=headers)).json()["keys"]
    return {key["prefix"]: key["state"] for key in keys}


async def test_a_new_key_is_shown_once_and_works(node: RunningNode) -> None:
    user_id, ana = await person(node, "ana")
    response = await node.http.post(GENERATE, json={"name": "laptop"}, headers=ana)
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    made = response.json()
    assert re.fullmatch(r"atp_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{39}", made["key"])
    assert datetime.now(UTC) - datetime.fromisoformat(made["created_at"]) < timedelta(minutes=1)
    assert {name: made[name] for name in made if name not in ("key", "created_at")} == {
        "prefix": made["key"][9:17],
        "name": "laptop",
        "user_id": user_id,
        "scopes": ["chat", "read"],
        "rate_limits": {},
        "state": "active",
        "expires_at": None,
        "revoked_at": None,
        "replaced_by": None,
    }
    assert (await node.http.get(AGENTS, headers=own(made))).status_code == 200
    assert made["key"] not in (await node.http.get(KEYS, headers=ana)).text


async def test_keys_need_the_scope_keys(node: RunningNode) -> None:
    _, ana = await person(node, "ana", "chat", "read")
    asked = [("POST", GENERATE), ("GET", KEYS), ("DELETE", f"{KEYS}/aaaaaaaa"), ("POST", f"{KEYS}/aaaaaaaa/rotate")]
    for method, path in asked:
        response = await node.http.request(method, path, headers=ana)
        assert (response.status_code, response.json()["reason"]) == (403, "scope")


@pytest.mark.parametrize(
    "body",
    [{"scopes": ["admin"]}, {"scopes": ["chat", "read"]}, {"user_id": "usr_other"}, {"rate_limits": {"chat": "9/day"}}],
    ids=["admin", "read", "another's", "limits"],
)
async def test_nobody_mints_more_than_they_hold(node: RunningNode, body: dict[str, Any]) -> None:
    _, ana = await person(node, "ana", "chat", "keys")
    response = await node.http.post(GENERATE, json={"name": "x", **body}, headers=ana)
    assert (response.status_code, response.json()["reason"]) == (403, "scope")
    assert len(await states(node, ana)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["fly"]}, "scopes.0"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"name": "x", "expires_in_days": 1, "expires_at": "2030-01-01T00:00:00Z"}, ""),
        ({"name": "x", "rate_limits": {"chat": "often"}}, "rate_limits.chat"),
        ({"name": "x", "rate_limits": {"chat": "1/minute\n"}}, "rate_limits.chat"),
        ({"name": "x", "rate_limits": {"chat": "1\u0663/minute"}}, "rate_limits.chat"),  # a digit, of another script
        ({"name": "x", "rate_limits": {"chat": f"{10**30}/minute"}}, "rate_limits.chat"),
        ({"name": "x", "rate_limits": {"fly": "1/minute"}}, "rate_limits.fly.[key]"),
        ({"name": "x", "role": "admin"}, "role"),
    ],
)
async def test_what_makes_no_sense_is_422_and_named(node: RunningNode, body: dict[str, Any], field: str) -> None:
    response = await node.http.post(GENERATE, json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


async def test_an_admin_mints_for_others_with_limits_and_it_is_audited(node: RunningNode) -> None:
    user_id, _ = await person(node, "ana")
    limits = {"chat": "300/minute", "api": "9/second"}
    made = await generate(node, name="app", user_id=user_id, rate_limits=limits, scopes=["chat", "keys"])
    assert (made["user_id"], made["rate_limits"]) == (user_id, limits)
    assert (await identity(node, made["key"])).limits == limits
    assert await node.rows("SELECT action, target, details FROM admin_audit") == [
        (
            "generate_key",
            made["prefix"],
            {"user_id": user_id, "name": "app", "scopes": ["chat", "keys"], "rate_limits": limits},
        )
    ]


async def test_a_key_cannot_shake_its_limits_off_by_a_child(node: RunningNode) -> None:
    user_id, _ = await person(node, "ana")
    parent = await generate(node, user_id=user_id, rate_limits={"chat": "1/day"}, scopes=["chat", "keys"])
    child = await generate(node, own(parent), scopes=["chat"])
    assert (await identity(node, child["key"])).limits == {"chat": "1/day"}


async def test_for_a_user_who_is_none_and_a_scope_that_is_not_theirs(node: RunningNode) -> None:
    user_id, _ = await person(node, "ana")
    nobody = await node.http.post(GENERATE, json={"name": "x", "user_id": "usr_nobody"})
    assert (nobody.status_code, nobody.json()["type"]) == (404, "urn:atp:problem:not-found")
    admin = await node.http.post(GENERATE, json={"name": "x", "user_id": user_id, "scopes": ["admin"]})
    assert (admin.status_code, admin.json()["detail"]) == (
        422,
        "The scope admin is for keys of users with the role admin.",
    )
    assert await node.rows("SELECT action FROM admin_audit") == []


async def test_a_user_has_so_many_active_keys_and_no_more_even_at_once(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    asked = [node.http.post(GENERATE, json={"name": "x"}, headers=ana) for _ in range(6)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert (refused["reason"], refused["detail"]) == ("keys_per_user", "A user may have 3 keys; revoke one first.")
    prefix = next(answer.json()["prefix"] for answer in answers if answer.status_code == 201)
    await node.http.delete(f"{KEYS}/{prefix}", headers=ana)
    await generate(node, ana)


async def test_keys_are_listed_newest_first_page_by_page(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    first, second = [(await generate(node, ana, name=name))["prefix"] for name in ("one", "two")]
    page = (await node.http.get(KEYS, params={"limit": 2}, headers=ana)).json()
    assert [key["prefix"] for key in page["keys"]] == [second, first]
    rest = (await node.http.get(KEYS, params={"limit": 2, "cursor": page["next_cursor"]}, headers=ana)).json()
    assert ([key["prefix"] for key in rest["keys"]], rest["next_cursor"]) == ([ana["x-api-key"][9:17]], None)
    for query in ("limit=0", "cursor=x", "cursor=99999999999999999999-a", "page=2"):
        assert (await node.http.get(f"{KEYS}?{query}", headers=ana)).status_code == 422


async def test_only_admins_list_the_keys_of_others(node: RunningNode) -> None:
    user_id, ana = await person(node, "ana")
    ben_id, ben = await person(node, "ben")
    for query in ({"user_id": user_id}, {"all": "true"}):
        response = await node.http.get(KEYS, params=query, headers=ben)
        assert (response.status_code, response.json()["reason"]) == (403, "scope")
    of_ana = (await node.http.get(KEYS, params={"user_id": user_id})).json()["keys"]
    assert [key["user_id"] for key in of_ana] == [user_id]
    of_all = (await node.http.get(KEYS, params={"all": "true"})).json()["keys"]
    assert [key["user_id"] for key in of_all][:2] == [ben_id, user_id]
    assert (await node.http.get(KEYS, params={"all": "true", "user_id": user_id})).status_code == 422
    assert ana["x-api-key"][9:17] not in (await node.http.get(KEYS, headers=ben)).text


async def test_a_key_is_revoked_at_once_and_again_is_fine(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    made = await generate(node, ana)
    assert (await node.http.get(AGENTS, headers=own(made))).status_code == 200
    for _ in range(2):
        assert (await node.http.delete(f"{KEYS}/{made['prefix']}", headers=ana)).status_code == 204
    refused = await node.http.get(AGENTS, headers=own(made))
    assert (refused.status_code, refused.json()["reason"]) == (401, "revoked")
    assert (await states(node, ana))[made["prefix"]] == "revoked"


async def test_anothers_key_is_not_there_for_anybody_but_an_admin(node: RunningNode) -> None:
    user_id, ana = await person(node, "ana")
    _, ben = await person(node, "ben")
    prefix = ana["x-api-key"][9:17]
    for unknown in (prefix, "aaaaaaaa", "a%00a", "too-long-for-a-prefix"):
        gone = await node.http.delete(f"{KEYS}/{unknown}", headers=ben)
        spun = await node.http.post(f"{KEYS}/{unknown}/rotate", json={}, headers=ben)
        assert (gone.status_code, spun.status_code) == (404, 404)
        assert gone.json()["detail"] == spun.json()["detail"] == "There is no such key."
    assert (await node.http.get(AGENTS, headers=ana)).status_code == 200
    assert (await node.http.delete(f"{KEYS}/{prefix}")).status_code == 204
    assert (await node.http.get(AGENTS, headers=ana)).status_code == 401
    assert await node.rows("SELECT action, target, details FROM admin_audit") == [
        ("revoke_key", prefix, {"user_id": user_id})
    ]


async def test_a_rotated_key_is_good_for_its_grace_beside_the_new_one(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    old = await generate(node, ana, name="app", expires_in_days=30)
    response = await node.http.post(f"{KEYS}/{old['prefix']}/rotate", json={"grace_s": 60}, headers=ana)
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    new = response.json()
    assert [new[name] for name in ("name", "scopes", "expires_at")] == ["app", ["chat", "read"], old["expires_at"]]
    for key in (old, new):
        assert (await node.http.get(AGENTS, headers=own(key))).status_code == 200
    assert await states(node, ana) == {
        new["prefix"]: "active",
        old["prefix"]: "rotating",
        ana["x-api-key"][9:17]: "active",
    }
    sql = "SELECT replaced_by, expires_at < now() + interval '61 s' FROM api_keys WHERE replaced_by IS NOT NULL"
    assert await node.rows(sql) == [(new["prefix"], True)]


async def test_rotation_never_prolongs_a_key(node: RunningNode) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    old = await generate(node, expires_at=soon)
    new = (await node.http.post(f"{KEYS}/{old['prefix']}/rotate", json={"grace_s": 604_800})).json()
    listed = (await node.http.get(KEYS)).json()["keys"]
    assert {key["expires_at"] for key in listed if key["prefix"] in (old["prefix"], new["prefix"])} == {
        old["expires_at"]
    }
    assert (await node.http.post(f"{KEYS}/{new['prefix']}/rotate", json={"grace_s": 604_801})).status_code == 422


async def test_rotation_keeps_the_keys_own_limits_whoever_rotates_it(node: RunningNode) -> None:
    user_id, _ = await person(node, "ana")
    limits = {"chat": "1/day", "keys": "9/minute"}
    key = await generate(node, user_id=user_id, rate_limits=limits, scopes=["chat", "keys"])
    for headers in (own(key), None):  # its owner, an admin
        response = await node.http.post(f"{KEYS}/{key['prefix']}/rotate", json={}, headers=headers)
        assert (response.status_code, response.json()["rate_limits"]) == (201, limits)
        key = response.json()
        assert (await identity(node, key["key"])).limits == limits


async def test_a_grace_of_nothing_ends_the_old_key_at_once(node: RunningNode) -> None:
    old = await generate(node)
    assert (await node.http.get(AGENTS, headers=own(old))).status_code == 200
    new = (await node.http.post(f"{KEYS}/{old['prefix']}/rotate", json={"grace_s": 0})).json()
    assert (await node.http.get(AGENTS, headers=own(old))).json()["reason"] == "revoked"
    assert (await node.http.get(AGENTS, headers=own(new))).status_code == 200


async def test_a_key_is_rotated_once_however_many_ask(node: RunningNode) -> None:
    _, ana = await person(node, "ana")
    old = await generate(node, ana)
    asked = [node.http.post(f"{KEYS}/{old['prefix']}/rotate", json={}, headers=ana) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert {answer.json()["reason"] for answer in answers if answer.status_code == 409} == {"rotating"}
    await node.http.delete(f"{KEYS}/{old['prefix']}", headers=ana)
    refused = await node.http.post(f"{KEYS}/{old['prefix']}/rotate", json={}, headers=ana)
    assert (refused.status_code, refused.json()["reason"]) == (409, "revoked")


async def test_rotating_gives_nobody_a_key_with_more_than_they_hold(node: RunningNode) -> None:
    strong = await node.new_key("admin")
    weak = {"x-api-key": await node.new_key("keys")}  # of the same user
    refused = await node.http.post(f"{KEYS}/{strong[9:17]}/rotate", json={}, headers=weak)
    assert (refused.status_code, refused.json()["reason"]) == (403, "scope")


async def test_rotation_after_rotation_heaps_up_no_keys(node: RunningNode) -> None:
    key = await generate(node)
    for _ in range(3):
        key = (await node.http.post(f"{KEYS}/{key['prefix']}/rotate", json={})).json()
    refused = await node.http.post(f"{KEYS}/{key['prefix']}/rotate", json={})
    assert (refused.status_code, refused.json()["reason"]) == (409, "keys_per_user")
    assert (await node.http.post(f"{KEYS}/{key['prefix']}/rotate", json={"grace_s": 0})).status_code == 201
