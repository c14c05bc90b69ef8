"""The verifier: one query for many callers, and no belief in a row that was read before a revocation."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.background import end
from service.db.pool import Database, one_connection
from service.errors import DatabaseUnavailable, Forbidden, StateUnavailable, Unauthorized
from service.keys import issuing, token, verifier
from service.keys.revocations import MemoryRevocations, RedisRevocations, Revocations
from service.keys.verifier import KeyVerifier
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.servers import OwnPostgres
from tests.waiting import eventually


class Desk:
    """A verifier over a real database, on a clock that the test moves."""

    def __init__(self, db: Database, metrics: Metrics) -> None:
        self.db, self._metrics, self.now = db, metrics, 0.0
        self.keys = KeyVerifier(db, Failover[Revocations](None, None, MemoryRevocations()), None, lambda: self.now)

    def queries(self) -> float:
        labels = {"system": "postgresql", "operation": "select_key"}
        return self._metrics.registry.get_sample_value("db_client_operation_duration_seconds_count", labels) or 0


@asynccontextmanager
async def desk(dsn: str) -> AsyncIterator[tuple[Desk, str]]:
    async with one_connection(dsn) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
        key = await issuing.create_key(connection, "ana", "x", ["read"])
    metrics = Metrics()
    settings = load(database_url=dsn, db_pool_size=2, db_max_overflow=2, db_timeout=0.5)
    async with Database(settings, metrics) as db:
        yield Desk(db, metrics), key.text


async def test_many_callers_with_one_key_share_one_query(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        identities = await asyncio.gather(*(at.keys.verify(key) for _ in range(50)))
        assert at.queries() == 1
    assert {identity.key_prefix for identity in identities} == {key[9:17]}
    assert identities[0].role == "user"
    with pytest.raises(Forbidden):
        identities[0].require("admin")


async def test_a_key_is_asked_again_after_thirty_seconds(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        await at.keys.verify(key)
        at.now = verifier.FRESH_S - 0.1
        await at.keys.verify(key)
        assert at.queries() == 1
        at.now = verifier.FRESH_S + 0.1
        await at.keys.verify(key)
        assert at.queries() == 2


async def test_a_key_that_was_good_is_remembered_as_such_until_it_changes(database_url: str) -> None:
    """Also when all has to be asked anew, after an outage of Redis."""
    async with desk(database_url) as (at, key):
        assert not at.keys.remembers(key)
        await at.keys.verify(key)
        assert at.keys.remembers(key)
        at.now = 299.0
        assert at.keys.remembers(key)
        at.now = 300.0
        assert not at.keys.remembers(key)
        at.now = 0.0
        await at.keys.revoked(token.digest(key))
        assert not at.keys.remembers(key)


async def test_a_row_read_before_a_revocation_is_not_remembered(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.keys import store

    read, go_on = asyncio.Event(), asyncio.Event()
    select_key = store.select_key

    async def slow(connection: store.Connection, key_hash: bytes) -> store.KeyRow | None:
        row = await select_key(connection, key_hash)
        read.set()
        await go_on.wait()
        return row

    async with desk(database_url) as (at, key):
        with monkeypatch.context() as patch:
            patch.setattr(store, "select_key", slow)
            asking = asyncio.create_task(at.keys.verify(key))
            await read.wait()
            async with one_connection(database_url) as connection:
                key_hash = await issuing.revoke_key(connection, key[9:17])
            await at.keys.revoked(key_hash)
            go_on.set()
            await asking  # it was good when it was asked
        with pytest.raises(Unauthorized):
            await at.keys.verify(key)


async def test_a_caller_that_leaves_does_not_cancel_the_query_of_the_others(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        first, second = (asyncio.create_task(at.keys.verify(key)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).key_prefix == key[9:17]


async def test_a_known_key_is_believed_for_five_minutes_without_postgresql(own_postgres: OwnPostgres) -> None:
    async with desk(own_postgres.dsn) as (at, key):
        await at.keys.verify(key)
        await own_postgres.kill()
        await eventually(lambda: not at.db.up)
        at.now = verifier.STALE_S - 1
        assert (await at.keys.verify(key)).key_prefix == key[9:17]
        at.now = verifier.STALE_S + 1
        with pytest.raises(DatabaseUnavailable):
            await at.keys.verify(key)


async def test_a_known_key_does_not_wait_for_a_frozen_postgresql(own_postgres: OwnPostgres) -> None:
    async with desk(own_postgres.dsn) as (at, key):
        await at.keys.verify(key)
        own_postgres.freeze()
        at.now = verifier.FRESH_S + 1
        started = time.monotonic()
        assert (await at.keys.verify(key)).key_prefix == key[9:17]
        assert time.monotonic() - started < 1.0
        own_postgres.thaw()


async def test_an_announcement_that_one_failed_call_kept_back_is_made_at_the_next_look(
    database_url: str, redis_url: str
) -> None:
    memory, metrics, settings = MemoryRevocations(), Metrics(), load(database_url=database_url, redis_url=redis_url)
    state = RedisState(settings, metrics)
    shared = RedisRevocations(state)
    async with Database(settings, metrics) as db:
        breaker = Breaker(state.ping, metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory"))
        keys = KeyVerifier(db, Failover[Revocations](breaker, shared, memory), shared)
        await memory.publish(b"k" * 32)
        running = asyncio.create_task(keys.run())

        async def announced() -> bool:
            return (await shared.since("0-0"))[1] == [b"k" * 32]

        await eventually(announced)
        await end(running)
    await state.close()


async def test_a_keys_end_is_counted_on_the_monotonic_clock(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        async with one_connection(database_url) as connection:
            await connection.execute("UPDATE api_keys SET expires_at = now() + interval '20 s'")
        assert (await at.keys.verify(key)).ends_at == pytest.approx(20.0, abs=2.0)
        at.now = 17.0
        await at.keys.verify(key)
        at.now = 20.1
        with pytest.raises(Unauthorized) as refusal:
            await at.keys.verify(key)
        assert refusal.value.extra == {"reason": "expired"}
        assert at.queries() == 1


async def test_the_scope_admin_counts_while_its_user_has_the_role(database_url: str) -> None:
    async with one_connection(database_url) as connection:
        await issuing.create_user(connection, "root", "root@example.org", "admin")
        key = (await issuing.create_key(connection, "root", "x", ["admin"])).text
    async with desk(database_url) as (at, _):
        assert (await at.keys.verify(key)).is_admin
        async with one_connection(database_url) as connection:
            _, key_hashes = await issuing.change_user(connection, await issuing.user_id_of(connection, "root"), "user")
        await at.keys.revoked(*key_hashes)
        identity = await at.keys.verify(key)
        assert (identity.is_admin, identity.scopes) == (False, frozenset())


class Mute(MemoryRevocations):
    """What was kept back cannot be said, whenever it is tried."""

    async def republish(self, shared: Revocations) -> None:
        raise StateUnavailable()


async def test_a_revocation_that_was_read_is_believed_though_handing_over_ones_own_fails(
    database_url: str, redis_url: str
) -> None:
    metrics, settings = Metrics(), load(database_url=database_url, redis_url=redis_url)
    state, heard = RedisState(settings, metrics), []
    shared = RedisRevocations(state)
    async with Database(settings, metrics) as db:
        breaker = Breaker(state.ping, metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory"))
        keys = KeyVerifier(db, Failover[Revocations](breaker, shared, Mute()), shared)
        keys.on_change = heard.append
        running = asyncio.create_task(keys.run())
        await eventually(lambda: heard == [None])
        await shared.publish(b"k" * 32)
        await eventually(lambda: heard[-1] == b"k" * 32)
        await end(running)
    await state.close()
