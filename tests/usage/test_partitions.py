"""Months are made ahead, old ones are dropped, one node at a time does it, whatever the date is."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest

from service.db.pool import Database
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.partitions import LOCK, Partitions, Retention, month
from tests.usage.parts import ROW, counted, open_parts

NAMES = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'api_usage'::regclass"


# A server whose clock says that it is May in UTC, and still April in its own zone: what comes before pg_catalog in the
# search path is found first.
CLOCK_OF_2031 = (
    "CREATE SCHEMA ahead",
    "CREATE FUNCTION ahead.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$SELECT timestamptz '2031-05-01 01:00Z'$$",
    "ALTER DATABASE {database} SET search_path = ahead, pg_catalog, public",
    "ALTER DATABASE {database} SET timezone = 'America/New_York'",
)


@asynccontextmanager
async def keeper(dsn: str, now: datetime, rows_months: int = 13, daily_months: int = 36) -> AsyncIterator[Partitions]:
    async with Database(load(database_url=dsn, db_pool_size=1), Metrics()) as db:
        yield Partitions(db, Retention(rows_months, daily_months), lambda: now)


def partitions(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute(NAMES).fetchall()}


async def store_at(dsn: str, spool_dir: Path, *moments: datetime) -> None:
    async with open_parts(dsn, spool_dir, replaying=False) as parts:
        await parts.store.insert(
            [replace(ROW, id=uuid.UUID(int=number), timestamp=moment) for number, moment in enumerate(moments)]
        )


def rows_in(dsn: str, partition: str) -> int:
    sql = "SELECT count(*) FROM api_usage WHERE tableoid = %s::regclass"
    with psycopg.connect(dsn) as connection:
        row = connection.execute(sql.encode(), (partition,)).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize(
    ("day", "later", "first"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 1)),
        (date(2026, 12, 31), 2, date(2027, 2, 1)),
        (date(2026, 1, 1), -13, date(2024, 12, 1)),
        (date(2026, 11, 23), 0, date(2026, 11, 1)),
    ],
)
def test_months_are_counted_over_the_end_of_the_year(day: date, later: int, first: date) -> None:
    assert month(day, later) == first


async def test_this_month_and_the_next_two_are_there_and_a_second_time_changes_nothing(database_url: str) -> None:
    before = partitions(database_url)
    async with keeper(database_url, datetime(2030, 12, 31, 23, 59, tzinfo=UTC)) as keep:
        for _ in range(2):
            await keep.keep()
            assert partitions(database_url) - before == {"api_usage_2030_12", "api_usage_2031_01", "api_usage_2031_02"}


async def test_a_row_goes_into_its_month_also_in_the_last_microsecond(database_url: str, spool_dir: Path) -> None:
    async with keeper(database_url, datetime(2030, 5, 1, tzinfo=UTC)) as keep:
        await keep.keep()
    last = datetime(2030, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    await store_at(database_url, spool_dir, last, datetime(2030, 6, 1, tzinfo=UTC))
    assert (rows_in(database_url, "api_usage_2030_05"), rows_in(database_url, "api_usage_2030_06")) == (1, 1)


async def test_strays_move_into_their_month_when_it_is_made(database_url: str, spool_dir: Path) -> None:
    stray = datetime(2031, 3, 10, tzinfo=UTC)
    await store_at(database_url, spool_dir, stray, datetime(2020, 1, 1, tzinfo=UTC))
    assert rows_in(database_url, "api_usage_default") == 2
    async with keeper(database_url, datetime(2031, 3, 11, tzinfo=UTC), rows_months=300) as keep:
        await keep.keep()
    assert (rows_in(database_url, "api_usage_2031_03"), rows_in(database_url, "api_usage_default")) == (1, 1)
    await store_at(database_url, spool_dir, stray)  # replayed once more, with the same id
    assert counted(database_url)[0] == 2


async def test_what_is_too_old_is_dropped_rows_and_hours_before_days(database_url: str, spool_dir: Path) -> None:
    async with keeper(database_url, datetime(2030, 1, 15, tzinfo=UTC)) as keep:
        await keep.keep()
    moments = [
        datetime(2027, 1, 5, tzinfo=UTC),
        datetime(2030, 1, 31, 23, tzinfo=UTC),
        datetime(2030, 2, 1, tzinfo=UTC),
    ]
    await store_at(database_url, spool_dir, *moments)
    async with keeper(database_url, datetime(2031, 2, 28, tzinfo=UTC), rows_months=12, daily_months=36) as keep:
        await keep.keep()
    assert "api_usage_2030_01" not in partitions(database_url)
    assert "api_usage_2030_02" in partitions(database_url)
    assert counted(database_url) == (1, 1, 2)  # the row of 2027 was in the default partition


async def test_what_is_made_and_dropped_goes_by_postgresqls_clock_and_not_by_the_nodes(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in CLOCK_OF_2031:
            connection.execute(statement.format(database=database_url.rpartition("/")[2]).encode())
    async with Database(load(database_url=database_url, db_pool_size=1), Metrics()) as db:
        await Partitions(db, Retention(13, 36)).keep()
    assert partitions(database_url) == {
        *("api_usage_2031_05", "api_usage_2031_06", "api_usage_2031_07", "api_usage_default"),
    }


async def test_while_another_node_does_it_this_one_leaves_it_alone(database_url: str) -> None:
    before = partitions(database_url)
    async with keeper(database_url, datetime(2032, 1, 1, tzinfo=UTC)) as keep:
        with psycopg.connect(database_url) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            assert not await keep.keep()
            assert partitions(database_url) == before
        await asyncio.gather(*(keep.keep() for _ in range(3)))
        assert await keep.keep()
    assert len(partitions(database_url) - before) == 3
