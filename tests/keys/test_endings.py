"""The end of a key, on two nodes: what it may still do, and what it holds open, is over everywhere within a second."""

import asyncio
import os
import time
from typing import Any

import pytest
import redis

from service.db.pool import one_connection
from service.keys import issuing
from service.keys.revocations import STREAM
from tests.http.streaming import Tiny, parsed, tiny
from tests.keys.conftest import Pair
from tests.keys.people import generate, person, roomy
from tests.live.clients import Client, socket
from tests.nodes import RunningNode, running
from tests.servers import OwnPostgres
from tests.upstream import Upstream
from tests.waiting import eventually

KEYS, USERS, AGENTS = "/api/v1/keys", "/api/admin/users", "/api/v1/agents"


async def reason(node: RunningNode, key: str) -> Any:
    """Why the node refuses the key; None when it does not."""
    response = await node.http.get(AGENTS, headers={"x-api-key": key})
    return response.json()["reason"] if response.status_code == 401 else None


async def refused(node: RunningNode, key: str, why: str, since: float) -> float:
    """Wait until the node refuses the key; the seconds since then."""

    async def gone() -> bool:
        return bool(await reason(node, key) == why)

    await eventually(gone)
    return time.monotonic() - since


async def closed(client: Client, since: float) -> tuple[int, float]:
    code, _ = await client.closed()
    return code, time.monotonic() - since


async def streamed(door: Tiny, key: str, begun: asyncio.Event) -> tuple[str, float]:
    """Read a stream to its end: the reason in its last event, and when that was."""
    async with door.http.stream("GET", "/stream", headers={"x-api-key": key}) as response:
        text = ""
        async for chunk in response.aiter_text():
            text += chunk
            begun.set()
    name, problem = parsed(text)[-1]
    assert (name, problem["status"]) == ("error", 401)
    return problem["reason"], time.monotonic()


async def overdue_s(node: RunningNode, prefix: str) -> float:
    """How long ago the key expired, by PostgreSQL's clock."""
    async with one_connection(node.dsn) as connection:
        sql = "SELECT extract(epoch FROM clock_timestamp() - expires_at)::float8 FROM api_keys WHERE prefix = %s"
        row = await (await connection.execute(sql, (prefix,))).fetchone()
    assert row is not None
    return float(row[0])


async def expiring(node: RunningNode, left_s: float) -> str:
    key = await node.new_key("chat", "read")
    async with one_connection(node.dsn) as connection:
        sql = "UPDATE api_keys SET expires_at = clock_timestamp() + make_interval(secs => %s) WHERE prefix = %s"
        await connection.execute(sql, (left_s, key[9:17]))
    return key


async def test_a_key_revoked_on_one_node_is_over_on_the_other_within_a_second(pair: Pair) -> None:
    here, there = pair
    made, begun = await generate(here), asyncio.Event()
    key = made["key"]
    async with tiny(there.dsn, there.parts.streams) as door, socket(there, key=key) as client:
        stream = asyncio.create_task(streamed(door, key, begun))
        await begun.wait()
        assert await reason(there, key) is None
        assert (await here.http.delete(f"{KEYS}/{made['prefix']}")).status_code == 204
        since = time.monotonic()
        (code, closed_s), refused_s = await asyncio.gather(closed(client, since), refused(there, key, "revoked", since))
        why, ended_at = await stream
    assert (code, why) == (4001, "revoked")
    print(f"revoked: socket {closed_s:.3f} s, stream {ended_at - since:.3f} s, REST {refused_s:.3f} s")
    assert max(closed_s, refused_s, ended_at - since) < 1.0


async def test_an_inactive_users_sockets_streams_and_requests_end_everywhere(pair: Pair) -> None:
    here, there = pair
    user_id, ana = await person(here, "ana")
    key, begun = ana["x-api-key"], asyncio.Event()
    async with tiny(there.dsn, there.parts.streams) as door, socket(there, key=key) as client:
        stream = asyncio.create_task(streamed(door, key, begun))
        await begun.wait()
        await here.http.patch(f"{USERS}/{user_id}", json={"active": False})
        since = time.monotonic()
        code, closed_s = await closed(client, since)
        refused_s = await refused(there, key, "inactive_user", since)
        why, ended_at = await stream
    assert (code, why) == (4001, "inactive_user")
    assert max(closed_s, refused_s, ended_at - since) < 1.0
    await here.http.patch(f"{USERS}/{user_id}", json={"active": True})

    async def back() -> bool:
        return await reason(there, key) is None

    assert await eventually(back) < 1.0


async def test_an_admin_who_is_one_no_longer_may_do_nothing_on_the_other_node(pair: Pair) -> None:
    here, there = pair
    user_id, ana = await person(here, "ana", "admin", role="admin")
    assert (await there.http.get(USERS, headers=ana)).status_code == 200
    await here.http.patch(f"{USERS}/{user_id}", json={"role": "user"})

    async def forbidden() -> bool:
        return (await there.http.get(USERS, headers=ana)).status_code == 403

    assert await eventually(forbidden) < 1.0


async def test_an_expiry_closes_what_is_open_within_a_second_of_its_moment(node: RunningNode) -> None:
    key, begun = await expiring(node, 1.0), asyncio.Event()
    async with tiny(node.dsn, node.parts.streams) as door, socket(node, key=key) as client:
        stream = asyncio.create_task(streamed(door, key, begun))
        code, _ = await client.closed()
        late_s = await overdue_s(node, key[9:17])
        assert (await stream)[0] == "expired"
        assert 0.0 <= await overdue_s(node, key[9:17]) < 1.0
    print(f"expired: socket {late_s:.3f} s after its moment")
    assert (code, await reason(node, key)) == (4001, "expired")
    assert 0.0 <= late_s < 1.0


async def test_a_grace_that_begins_while_a_socket_is_open_ends_it_in_time_on_the_other_node(pair: Pair) -> None:
    here, there = pair
    old = await generate(here)
    async with socket(there, key=old["key"]) as client:
        new = (await here.http.post(f"{KEYS}/{old['prefix']}/rotate", json={"grace_s": 1})).json()
        await client.say("ping", id="1")  # both are good meanwhile
        assert (await client.next())["id"] == "1"
        assert await reason(there, new["key"]) is None
        code, _ = await client.closed()
        late_s = await overdue_s(here, old["prefix"])
    assert code == 4001
    assert 0.0 <= late_s < 1.0
    assert await reason(there, new["key"]) is None


def announce_many(redis_url: str, number: int) -> None:
    """What other nodes would say of as many keys."""
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipe:
        for _ in range(number):
            pipe.xadd(STREAM, {"hash": os.urandom(32).hex()})
        pipe.execute()


async def test_a_key_is_over_within_a_second_in_a_flood_of_others(pair: Pair, redis_url: str) -> None:
    here, there = pair
    made = await generate(here)
    async with socket(there, key=made["key"]) as client, socket(there) as other:
        await asyncio.to_thread(announce_many, redis_url, 1500)
        await here.http.delete(f"{KEYS}/{made['prefix']}")
        since = time.monotonic()
        (code, closed_s), _ = await asyncio.gather(
            closed(client, since), asyncio.to_thread(announce_many, redis_url, 1500)
        )
        await other.say("ping", id="1")
        assert (await other.next())["id"] == "1"
    print(f"in a flood of 3000: {closed_s:.3f} s")
    assert code == 4001
    assert closed_s < 1.0


async def test_while_postgresql_is_away_nothing_is_ended_and_afterwards_at_once(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream
) -> None:
    async with running(roomy(own_postgres.dsn, redis_url, model_server, db_timeout=0.5)) as node:
        key, lasting = await expiring(node, 1.0), await node.new_key("chat")
        async with socket(node, key=key) as client, socket(node, key=lasting) as other:
            await own_postgres.kill()
            await asyncio.sleep(1.2)  # its moment passes
            for each in (client, other):
                await each.say("ping", id="1")
                assert (await each.next())["id"] == "1"
            await own_postgres.restart()
            assert (await client.closed())[0] == 4001
            await other.say("ping", id="2")
            assert (await other.next())["id"] == "2"


@pytest.mark.parametrize("changed", ["revoked", "expired"])
async def test_without_redis_a_key_is_over_on_its_own_node_at_once(
    database_url: str, model_server: Upstream, changed: str
) -> None:
    async with running(roomy(database_url, "", model_server)) as node:
        key = await expiring(node, 0.7) if changed == "expired" else await node.new_key("chat")
        async with socket(node, key=key) as client:
            if changed == "revoked":
                async with one_connection(node.dsn) as connection:
                    key_hash = await issuing.revoke_key(connection, key[9:17])
                await node.parts.revoked(key_hash)
            since = time.monotonic()
            code, took_s = await closed(client, since)
    assert (code, took_s < 1.7) == (4001, True)
