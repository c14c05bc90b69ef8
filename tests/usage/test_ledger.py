"""The ledger: durable before it returns, in groups, never twice, and nobody waits for ever."""

import asyncio
import time
import uuid
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from service.errors import DatabaseRejected, DatabaseUnavailable
from tests.servers import OwnPostgres
from tests.usage.parts import ROW, counted, files_in, open_parts, rows, stored
from tests.waiting import eventually

NOWHERE = Path("/dev/null/spool")


async def test_a_recorded_row_is_committed_as_it_was(database_url: str, spool_dir: Path) -> None:
    async with open_parts(database_url, spool_dir) as parts:
        await parts.ledger.record(ROW)
        assert stored(
            database_url,
            "SELECT id::text, request_id, encode(key_hash, 'hex'), user_id, agent, model, tokens_in, tokens_out, "
            "cached, status, duration_s, cost_usd::text, timestamp AT TIME ZONE 'UTC' FROM api_usage",
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
            "0.0001",
            datetime(2026, 11, 23, 10, 30),  # noqa: DTZ001 - the query takes the zone off
        )


async def test_rows_that_arrive_together_share_commits_and_none_is_spooled(database_url: str, spool_dir: Path) -> None:
    async with open_parts(database_url, spool_dir) as parts:
        await asyncio.gather(*(parts.ledger.record(row) for row in rows(1000)))
        commits = parts.metrics.registry.get_sample_value(
            "db_client_operation_duration_seconds_count", {"system": "postgresql", "operation": "insert_usage"}
        )
    assert counted(database_url) == (1000, 1000, 1000)
    assert commits is not None
    assert commits <= 3
    assert (parts.count("stored"), parts.count("spooled")) == (1000, 0)
    assert files_in(spool_dir) == []


async def test_a_row_recorded_twice_is_counted_once(database_url: str, spool_dir: Path) -> None:
    async with open_parts(database_url, spool_dir) as parts:
        await parts.ledger.record(ROW)
        await parts.ledger.record(ROW)
    assert counted(database_url) == (1, 1, 1)


async def test_what_was_only_handed_over_is_committed_at_the_close(database_url: str, spool_dir: Path) -> None:
    async with open_parts(database_url, spool_dir) as parts:
        for row in rows(50):
            parts.ledger.enqueue(row)
    assert counted(database_url) == (50, 50, 50)


async def test_a_row_the_database_refuses_costs_the_others_nothing(database_url: str, spool_dir: Path) -> None:
    good, bad = rows(100), replace(ROW, id=uuid.UUID(int=1000), tokens_in=3_000_000_000)
    async with open_parts(database_url, spool_dir) as parts, asyncio.timeout(5):
        results = await asyncio.gather(
            *(parts.ledger.record(row) for row in [*good[:40], bad, *good[40:]]), return_exceptions=True
        )
    assert [type(result) for result in results if result] == [DatabaseRejected]
    assert counted(database_url) == (100, 100, 100)
    assert (parts.count("stored"), parts.count("failed")) == (100, 1)


async def test_while_postgresql_is_frozen_a_record_takes_half_a_second_once_and_then_only_the_disks_time(
    own_postgres: OwnPostgres, spool_dir: Path
) -> None:
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        first, *others = rows(21)
        await parts.ledger.record(ROW)
        own_postgres.freeze()
        took = [await timed(parts.ledger.record(row)) for row in (first, *others)]
        own_postgres.thaw()
        assert 0.4 < took[0] < 1.2
        assert max(took[1:]) < 0.4
        await eventually(lambda: parts.spool.rows == 0, within_s=10)
        await parts.ledger.record(replace(ROW, id=uuid.UUID(int=99)))
        assert parts.count("spooled") == 21
        assert parts.count("stored") == 2
    assert counted(own_postgres.dsn) == (22, 22, 22)  # the row 1 came twice


async def timed(work: object) -> float:
    began = time.monotonic()
    await work  # type: ignore[misc]
    return time.monotonic() - began


async def test_what_is_recorded_while_postgresql_is_gone_is_there_when_it_is_back(
    own_postgres: OwnPostgres, spool_dir: Path
) -> None:
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        await parts.ledger.record(ROW)
        await own_postgres.kill()
        async with asyncio.timeout(2):
            await asyncio.gather(*(parts.ledger.record(row) for row in rows(500, first=10)))
        parts.ledger.require_open()
        assert parts.gauge("atp_usage_spool_rows") == 500
        assert (parts.gauge("atp_usage_spool_bytes") or 0) > 100_000
        await own_postgres.restart()
        await eventually(lambda: parts.spool.rows == 0, within_s=10)
        assert (parts.count("spooled"), parts.count("replayed")) == (500, 500)
        assert parts.gauge("atp_usage_spool_bytes") == 0
        await eventually(lambda: parts.store.up)
        await parts.ledger.record(replace(ROW, id=uuid.UUID(int=600)))
        assert parts.count("stored") == 2
    assert counted(own_postgres.dsn) == (502, 502, 502)


async def test_with_neither_postgresql_nor_a_disk_records_fail_at_once_and_the_losses_are_counted() -> None:
    async with open_parts("postgresql://nobody@127.0.0.1:1/none", NOWHERE) as parts:
        await eventually(lambda: not parts.store.up)
        with pytest.raises(DatabaseUnavailable):
            parts.ledger.require_open()
        with pytest.raises(DatabaseUnavailable):
            await parts.ledger.record(ROW)
        assert parts.count("failed") == 1


async def test_without_a_disk_postgresql_alone_will_do(database_url: str) -> None:
    async with open_parts(database_url, NOWHERE) as parts:
        parts.ledger.require_open()
        await parts.ledger.record(ROW)
    assert counted(database_url) == (1, 1, 1)


async def test_without_a_disk_a_frozen_postgresql_is_waited_for_as_long_as_the_pool_allows(
    own_postgres: OwnPostgres,
) -> None:
    async with open_parts(own_postgres.dsn, NOWHERE) as parts:
        await parts.ledger.record(ROW)
        own_postgres.freeze()
        async with asyncio.timeout(4):
            with pytest.raises(DatabaseUnavailable):
                await parts.ledger.record(replace(ROW, id=uuid.UUID(int=2)))
        own_postgres.thaw()
    assert parts.count("failed") == 1


async def test_what_was_handed_over_during_an_outage_is_spooled_at_the_close_and_stored_by_the_next(
    own_postgres: OwnPostgres, spool_dir: Path
) -> None:
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        await own_postgres.kill()
        for row in rows(30):
            parts.ledger.enqueue(row)
    assert [path.name for path in files_in(spool_dir)] == ["lock", "0000000001.seg"]
    await own_postgres.restart()
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        await eventually(lambda: parts.count("replayed") == 30 and not parts.spool.rows)
    assert counted(own_postgres.dsn) == (30, 30, 30)
    assert files_in(spool_dir) == []
