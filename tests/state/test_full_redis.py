"""A whole node over a Redis that answers and refuses: what it tells of itself, and what it says afterwards."""

import pytest
import redis

from service.keys.revocations import STREAM
from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

DEGRADED = 'atp_degraded{dependency="redis",mode="memory"}'
KEY_HASH = bytes(32)


async def is_degraded(node: RunningNode, degraded: bool) -> bool:
    return await node.metric(DEGRADED) == degraded


async def is_marked(node: RunningNode) -> tuple[bool, bool]:
    """The mark of the statistics, and whether the health check calls Redis well."""
    online = (await node.http.get("/api/admin/stats/online-users")).json()
    ready = (await node.private.get("/readyz")).json()
    return online["degraded"], ready["dependencies"]["redis"]


async def test_a_full_redis_shows_everywhere_and_what_was_revoked_is_announced_once_it_takes_writes(
    database_url: str, model_server: Upstream, own_valkey: OwnValkey, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        await node.http.post("/api/v1/presence/heartbeat", json={"session_id": "r1"})
        assert await is_marked(node) == (False, True)
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", 1)
            await node.http.post("/api/v1/presence/heartbeat", json={"session_id": "r2"})
            await eventually(lambda: is_degraded(node, True))
            assert await is_marked(node) == (True, False)
            await node.parts.revoked(KEY_HASH)
            assert client.xlen(STREAM) == 0
            client.config_set("maxmemory", 0)
            assert await eventually(lambda: is_degraded(node, False), within_s=6) < 5.0
            # Perhaps twice: what Redis did and said too late is said again, which is harmless.
            assert {fields[b"hash"] for _, fields in client.xrange(STREAM)} == {KEY_HASH.hex().encode()}
        assert await is_marked(node) == (False, True)
        assert (await node.http.get("/api/admin/stats/online-users")).json()["sessions"] == 2
    logged = capfd.readouterr().out
    assert (logged.count("redis.degraded"), logged.count("redis.recovered")) == (1, 1)


async def test_a_revocation_that_redis_keeps_refusing_keeps_nobody_else_from_redis(
    database_url: str, model_server: Upstream, own_valkey: OwnValkey, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:
        with redis.Redis.from_url(own_valkey.url) as client:
            client.set(STREAM, "not a stream")
            await node.parts.revoked(KEY_HASH)
            own_valkey.freeze()
            await eventually(lambda: is_degraded(node, True))
            own_valkey.thaw()
            await eventually(lambda: is_degraded(node, False))
            assert await is_marked(node) == (False, True)
    logged = capfd.readouterr().out
    assert (logged.count("redis.degraded"), logged.count("redis.recovered")) == (1, 1)
    assert logged.count("redis.recovery_rejected") == 1
