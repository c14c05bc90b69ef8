"""The ledger: durable before it returns, in groups, never twice, and nobody waits for ever."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from service.background import Background
from service.db.pool import Database
from service.errors import DatabaseRejected, DatabaseUnavailable
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.ledger import Ledger, UsageRow
from tests.servers import OwnPostgres

ROW = UsageRow(
    id=uuid.UUID(int=1),
    request_id="request-1",
    timestamp=datetime(2026, 11, 23, tzinfo=UTC),
    key_hash="ab" * 32,
    user_id="ana",
    agent="reasoning",
    model="good",
    tokens_in=7,
    tokens_out=4,
    cached=False,
    status=200,
    duration_s=0.25,
)


def rows(count: int) -> list[UsageRow]:
    return [replace(ROW, id=uuid.UUID(int=number)) for number in range(count)]


@asynccontextmanager
async def ledger(dsn: str, metrics: Metrics | None = None) -> AsyncIterator[Ledger]:
    metrics = metrics or Metrics()
    settings = load(database_url=dsn, db_pool_size=1, db_max_overflow=1, db_timeout=0.5)
    async with Database(settings, metrics) as db:
        made = Ledger(db, metrics)
        async with Background(metrics.unhandled.labels("background")) as background:
            background.start("ledger", made.run)
            yield made
        await made.close()


def stored(dsn: str, sql: str = "SELECT count(*) FROM api_usage") -> Any:
    with psycopg.connect(dsn) as connection:
        return connection.execute(sql.encode()).fetchone()


async def test_a_recorded_row_is_committed_as_it_was(database_url: str) -> None:
    async with ledger(database_url) as open_ledger:
        await open_ledger.record(ROW)
        assert stored(
            database_url,
            "SELECT id::text, request_id, encode(key_hash, 'hex'), user_id, agent, model, tokens_in, tokens_out, "
            "cached, status, duration_s, timestamp AT TIME ZONE 'UTC' FROM api_usage",
        ) == (
            "00000000-0000-0000-0000-000000000001",
            "request-1",
            "ab" * 32,
            "ana",
            "reasoning",
            "good",
            7,
            4,
            False,
            200,
            0.25,
            datetime(2026, 11, 23),  # noqa: DTZ001 - the query takes the zone off
        )


async def test_rows_that_arrive_together_share_commits(database_url: str) -> None:
    metrics = Metrics()
    async with ledger(database_url, metrics) as open_ledger:
        await asyncio.gather(*(open_ledger.record(row) for row in rows(1000)))
        commits = metrics.registry.get_sample_value(
            "db_client_operation_duration_seconds_count", {"system": "postgresql", "operation": "insert_usage"}
        )
    assert stored(database_url) == (1000,)
    assert commits is not None
    assert commits <= 3
    assert metrics.registry.get_sample_value("atp_usage_rows_total", {"outcome": "stored"}) == 1000


async def test_a_row_recorded_twice_is_counted_once(database_url: str) -> None:
    async with ledger(database_url) as open_ledger:
        await open_ledger.record(ROW)
        await open_ledger.record(ROW)
    assert stored(database_url) == (1,)


async def test_what_was_only_handed_over_is_committed_at_the_close(database_url: str) -> None:
    async with ledger(database_url) as open_ledger:
        for row in rows(50):
            open_ledger.enqueue(row)
    assert stored(database_url) == (50,)


async def test_while_postgresql_is_away_a_record_fails_soon_and_the_loss_is_counted(own_postgres: OwnPostgres) -> None:
    metrics = Metrics()
    async with ledger(own_postgres.dsn, metrics) as open_ledger:
        await open_ledger.record(ROW)
        own_postgres.freeze()
        async with asyncio.timeout(3):
            with pytest.raises(DatabaseUnavailable):
                await open_ledger.record(replace(ROW, id=uuid.UUID(int=2)))
        own_postgres.thaw()
    assert metrics.registry.get_sample_value("atp_usage_rows_total", {"outcome": "failed"}) == 1


async def test_a_row_the_database_refuses_costs_the_others_nothing(database_url: str) -> None:
    good, bad = rows(100), replace(ROW, id=uuid.UUID(int=1000), tokens_in=3_000_000_000)
    async with ledger(database_url) as open_ledger, asyncio.timeout(5):
        results = await asyncio.gather(
            *(open_ledger.record(row) for row in [*good[:40], bad, *good[40:]]), return_exceptions=True
        )
    assert [type(result) for result in results if result] == [DatabaseRejected]
    assert stored(database_url) == (100,)
