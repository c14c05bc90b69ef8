"""DELETE /api/admin/cache: nobody is served what was cached before, on any node, and the trail says who asked."""

import time

from service.cache.entry import Entry, name_of
from service.wiring import Node, open_node
from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnPostgres, OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

CODING, WRITING = name_of("agent_response", "a" * 64), name_of("agent_response", "b" * 64)


async def keep(node: RunningNode, name: str, agent: str) -> None:
    moment = node.parts.cache.clock.now_ms()
    assert await node.parts.cache.put(name, Entry(b"answer", 60.0, moment, moment, (agent,)))


async def has(node: RunningNode, name: str) -> bool:
    return await node.parts.cache.get(name) is not None


async def gone(node: Node, name: str) -> bool:
    return await node.cache.get(name) is None


async def test_a_flush_of_one_agent_reaches_every_node_and_leaves_the_other_agents(
    node: RunningNode, database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with open_node(node_settings(database_url, redis_url, model_server)) as other:
        await keep(node, CODING, "coding")
        await keep(node, WRITING, "writing")
        assert not await gone(other, CODING)
        assert not await gone(other, WRITING)
        response = await node.http.delete("/api/admin/cache/coding")
        assert response.status_code == 200
        assert response.json() == {"id": response.json()["id"], "agent": "coding", "degraded": False}
        assert not await has(node, CODING)
        assert await has(node, WRITING)
        took_s = await eventually(lambda: gone(other, CODING), 2.0)
        assert took_s < 1
        assert not await gone(other, WRITING)
    rows = await node.rows("SELECT id::text, user_id, action, target, details FROM admin_audit")
    assert rows == [(response.json()["id"], rows[0][1], "flush_cache", "coding", {})]


async def test_a_flush_of_everything(node: RunningNode) -> None:
    await keep(node, CODING, "coding")
    await keep(node, WRITING, "writing")
    response = await node.http.delete("/api/admin/cache")
    assert response.json() == {"id": response.json()["id"], "agent": None, "degraded": False}
    assert not await has(node, CODING)
    assert not await has(node, WRITING)
    assert (await node.rows("SELECT action, target FROM admin_audit")) == [("flush_cache", "everything")]


async def test_an_agent_that_there_is_not_is_404_and_leaves_no_row(node: RunningNode) -> None:
    response = await node.http.delete("/api/admin/cache/nobody")
    assert (response.status_code, "coding" in response.json()["known"]) == (404, True)
    assert await node.rows("SELECT 1 FROM admin_audit") == []


async def test_it_needs_the_scope_admin(node: RunningNode) -> None:
    key = await node.new_key("chat", "read")
    for path in ("/api/admin/cache", "/api/admin/cache/coding"):
        assert (await node.http.delete(path, headers={"x-api-key": key})).status_code == 403


async def test_while_redis_is_away_it_holds_on_this_node_and_says_so(
    database_url: str, own_valkey: OwnValkey, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        await keep(node, CODING, "coding")
        await own_valkey.kill()
        response = await node.http.delete("/api/admin/cache/coding")
        assert (response.status_code, response.json()["degraded"]) == (200, True)
        assert not await has(node, CODING)


async def test_what_cannot_be_audited_is_not_done(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(own_postgres.dsn, redis_url, model_server)) as node:
        await keep(node, CODING, "coding")
        assert (await node.http.get("/api/v1/agents")).status_code == 200  # the key is known from here on
        await own_postgres.kill()
        started = time.monotonic()
        assert (await node.http.delete("/api/admin/cache")).status_code == 503
        assert time.monotonic() - started < 3
        assert await has(node, CODING)


async def test_what_is_in_memory_is_told_to_prometheus(node: RunningNode) -> None:
    await keep(node, CODING, "coding")
    assert await node.metric("atp_cache_memory_entries") == 1
    assert 400 < await node.metric("atp_cache_memory_bytes") < 700
    assert await node.metric("atp_cache_evictions_total") == 0
    for cache in ("agent_response", "query", "function"):
        for result in ("hit", "miss", "shared", "bypass"):
            text = (await node.private.get("/metrics")).text
            assert f'atp_cache_requests_total{{cache="{cache}",result="{result}"}} 0.0' in text
