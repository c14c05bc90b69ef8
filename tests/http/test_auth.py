"""Keys at the door: both headers, every refusal, scopes, and a revocation that reaches other nodes."""

from functools import partial
from typing import Any

import pytest
import redis

from service.commands import announce
from service.db.pool import one_connection
from service.keys import issuing
from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnPostgres, OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

MODELS = "/api/v1/models"


async def status(node: RunningNode, key: str) -> int:
    return (await node.http.get(MODELS, headers={"x-api-key": key})).status_code


async def refused(node: RunningNode, key: str) -> bool:
    return await status(node, key) == 401


async def revoke(node: RunningNode, key: str) -> bytes:
    async with one_connection(node.dsn) as connection:
        return await issuing.revoke_key(connection, key[9:17])


async def test_a_key_opens_the_door_in_either_header(node: RunningNode) -> None:
    assert await status(node, node.key) == 200
    bearer = {"x-api-key": "", "authorization": f"bearer {node.key}"}
    del bearer["x-api-key"]
    async with node.http.stream("GET", node.url + MODELS, headers=bearer) as response:
        assert response.status_code == 200


async def test_a_refusal_is_401_with_its_reason_and_how_to_authenticate(node: RunningNode) -> None:
    cases = {
        "malformed": "atp_live_nonsense",
        "unknown": "atp_live_aaaaaaaa_" + "b" * 33 + "1",
    }
    response = await node.http.get(MODELS, headers={"x-api-key": cases["malformed"]})
    assert response.status_code == 401
    assert response.json()["reason"] == "malformed"
    assert response.headers["www-authenticate"] == 'Bearer realm="atp"'
    assert await node.metric('atp_auth_failures_total{reason="malformed"}') == 1


async def test_no_key_is_401(node: RunningNode) -> None:
    import httpx2

    async with httpx2.AsyncClient(base_url=node.url) as anonymous:
        response = await anonymous.get(MODELS)
    assert (response.status_code, response.json()["reason"]) == (401, "missing")


async def test_a_key_of_nobody_is_unknown(node: RunningNode) -> None:
    from service.keys import token

    response = await node.http.get(MODELS, headers={"x-api-key": token.mint().text})
    assert (response.status_code, response.json()["reason"]) == (401, "unknown")


async def test_a_key_needs_the_scope_of_the_operation(node: RunningNode) -> None:
    reader = await node.new_key("read")
    assert await status(node, reader) == 200
    body = {"agent": "reasoning", "task": "x", "model": "good"}
    response = await node.http.post("/api/v1/chat", json=body, headers={"x-api-key": reader})
    assert (response.status_code, response.json()["type"]) == (403, "urn:atp:problem:forbidden")


async def test_an_expired_key_and_an_inactive_users_key_are_refused(node: RunningNode) -> None:
    expired, orphan = await node.new_key("read"), await node.new_key("read")
    async with one_connection(node.dsn) as connection:
        await connection.execute("UPDATE api_keys SET expires_at = now() WHERE prefix = %s", (expired[9:17],))
    assert await status(node, expired) == 401
    async with one_connection(node.dsn) as connection:
        await connection.execute("UPDATE users SET active = false")
    response = await node.http.get(MODELS, headers={"x-api-key": orphan})
    assert (response.status_code, response.json()["reason"]) == (401, "inactive_user")


async def test_a_verified_key_costs_no_further_query(node: RunningNode) -> None:
    key = await node.new_key("read")
    for _ in range(5):
        assert await status(node, key) == 200
    series = 'db_client_operation_duration_seconds_count{operation="select_key",system="postgresql"}'
    assert await node.metric(series) == 1


async def test_a_revocation_reaches_another_node_within_a_second(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server)
    async with running(settings) as node:
        key = await node.new_key("read")
        assert await status(node, key) == 200
        await eventually(lambda: primed(node))
        key_hash = await revoke(node, key)
        assert await announce(key_hash, settings)
        assert await eventually(partial(refused, node, key)) < 1.0


async def test_a_foreign_entry_in_the_log_does_not_stop_revocations(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server)
    async with running(settings) as node:
        key = await node.new_key("read")
        assert await status(node, key) == 200
        await eventually(lambda: primed(node))
        with redis.Redis.from_url(redis_url) as client:
            for fields in ({"x": "y"}, {"hash": "no hex"}, {"hash": "ab"}):
                client.xadd("atp:keys:revoked", fields)
        assert await announce(await revoke(node, key), settings)
        assert await eventually(partial(refused, node, key)) < 1.0


async def test_a_redis_that_refuses_a_command_is_answered_from_memory(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("atp:keys:revoked", "not a stream")
    settings = node_settings(database_url, redis_url, model_server)
    async with running(settings) as node:
        assert await status(node, node.key) == 200
        assert not await announce(await revoke(node, await node.new_key("read")), settings)
        assert await node.metric('atp_degraded{dependency="redis",mode="memory"}') == 0


async def primed(node: RunningNode) -> bool:
    """The node has read the log's end, so from here on it hears of every revocation."""
    series = 'db_client_operation_duration_seconds_count{operation="revocations_end",system="redis"}'
    return await node.metric(series) >= 1


async def test_while_redis_is_away_a_revocation_bites_through_postgresql(
    database_url: str, own_valkey: OwnValkey, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        key = await node.new_key("read")
        assert await status(node, key) == 200
        await own_valkey.kill()
        await eventually(lambda: degraded(node))
        assert await status(node, key) == 200
        await revoke(node, key)
        assert await eventually(partial(refused, node, key)) < 1.5


async def degraded(node: RunningNode) -> bool:
    return await node.metric('atp_degraded{dependency="redis",mode="memory"}') == 1


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_known_keys_work_while_postgresql_is_away_and_unknown_ones_get_503(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream, fault: str
) -> None:
    settings = node_settings(own_postgres.dsn, redis_url, model_server, db_timeout=0.5)
    async with running(settings) as node:
        other = await node.new_key("read")
        assert await status(node, node.key) == 200
        await (own_postgres.kill() if fault == "killed" else freeze(own_postgres))
        assert await status(node, node.key) == 200
        response = await node.http.get(MODELS, headers={"x-api-key": other})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.elapsed.total_seconds() < 3
        await (own_postgres.restart() if fault == "killed" else thaw(own_postgres))

        async def served() -> bool:
            return await status(node, other) == 200

        assert await eventually(served, within_s=10) < 10


async def freeze(server: Any) -> None:
    server.freeze()


async def thaw(server: Any) -> None:
    server.thaw()
