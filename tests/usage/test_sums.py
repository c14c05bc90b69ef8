"""The hourly and daily sums are what a recount of the rows gives, however the rows came."""

import asyncio
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.db.migrate import FOLDER, migrate, migrations
from service.db.pool import Database
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.quantiles import BOUNDS_S
from service.usage.row import UsageRow
from service.usage.store import Store
from tests.servers import run
from tests.usage.parts import ROW, counted, open_parts, stored

START = datetime(2026, 10, 31, 22, 40, tzinfo=UTC)
RECOUNT = """
SELECT date_trunc(%s, "timestamp", 'UTC'), key_hash, user_id, agent, model, count(*),
       count(*) FILTER (WHERE status >= 400 AND status <> 499), count(*) FILTER (WHERE status = 499),
       count(*) FILTER (WHERE cached), sum(tokens_in), sum(tokens_out), sum(cost_usd)
FROM api_usage GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"""
SUMS = """
SELECT start, key_hash, user_id, agent, model, sum(requests), sum(errors), sum(cancelled), sum(cached),
       sum(tokens_in), sum(tokens_out), sum(cost_usd)
FROM usage_sums WHERE span = %s GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"""
DURATIONS = "SELECT sum((SELECT sum(n) FROM unnest(durations) AS n))::int FROM usage_sums WHERE span = %s"


@st.composite
def some_rows(draw: st.DrawFn) -> list[UsageRow]:
    numbers = draw(st.lists(st.integers(0, 60), min_size=1, max_size=25))
    return [row_of(number) for number in numbers]


def row_of(number: int) -> UsageRow:
    """Of a few hours in two months, of a few keys; the same for the same number."""
    rolled = random.Random(number)
    key = rolled.choice("abc")
    return replace(
        ROW,
        id=uuid.UUID(int=number),
        timestamp=START + timedelta(minutes=rolled.randrange(300)),
        key_hash=key * 64,
        user_id=f"user-{key}",
        agent=rolled.choice(["reasoning", "summary"]),
        cached=rolled.random() < 0.3,
        status=rolled.choice([200, 200, 499, 502, 429]),
        tokens_in=rolled.randrange(1000),
        cost_usd=rolled.randrange(1000) / 1e6,
        duration_s=rolled.random() * 10 ** rolled.randrange(-4, 3),
    )


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(some_rows(), min_size=1, max_size=6), nodes=st.lists(st.sampled_from("abc"), min_size=1))
def test_they_are_what_a_recount_gives_after_any_batches_and_replays_from_several_nodes(
    database_url: str, batches: list[list[UsageRow]], nodes: list[str]
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE api_usage, usage_sums")
    run(store(database_url, batches, nodes))
    with psycopg.connect(database_url) as connection:
        for span in ("hour", "day"):
            recount: list[Any] = connection.execute(RECOUNT.encode(), (span,)).fetchall()
            assert connection.execute(SUMS.encode(), (span,)).fetchall() == recount
            assert connection.execute(DURATIONS.encode(), (span,)).fetchone() == (sum(row[5] for row in recount),)


async def store(dsn: str, batches: list[list[UsageRow]], nodes: list[str]) -> None:
    async with Database(load(database_url=dsn, db_pool_size=1), Metrics()) as db:
        for number, batch in enumerate(batches):
            await Store(db, nodes[number % len(nodes)]).insert(batch)


async def test_nodes_that_add_to_the_same_sums_at_the_same_time_neither_deadlock_nor_lose_any(
    database_url: str,
) -> None:
    """All of one shard, each with its keys in another order."""

    def batch(number: int) -> list[UsageRow]:
        made = [replace(row_of(n), id=uuid.uuid4()) for n in range(60)]
        random.Random(number).shuffle(made)
        return made

    async with Database(load(database_url=database_url, db_pool_size=4, db_timeout=20), Metrics()) as db:
        store = Store(db, "node")
        await asyncio.gather(*(store.insert(batch(number)) for number in range(24)))
    assert counted(database_url) == (1440, 1440, 1440)


async def test_a_duration_falls_into_the_bucket_that_ends_above_it(database_url: str, spool_dir: Path) -> None:
    took = [0.0, 0.0009, 0.001, 0.25, 0.39, 119.0, 120.0, 500.0]
    async with open_parts(database_url, spool_dir) as parts:
        await parts.store.insert(
            [replace(ROW, id=uuid.UUID(int=number), duration_s=duration_s) for number, duration_s in enumerate(took)]
        )
    (durations,) = stored(database_url, "SELECT durations FROM usage_hourly")
    assert {bucket: count for bucket, count in enumerate(durations) if count} == {0: 2, 1: 1, 13: 2, 25: 1, 26: 2}


def test_the_bounds_of_the_code_are_those_of_the_database(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for index, bound_s in enumerate(BOUNDS_S):
            below = connection.execute("SELECT duration_bucket(%s)", (bound_s * 0.999,)).fetchone()
            at = connection.execute("SELECT duration_bucket(%s)", (bound_s,)).fetchone()
            assert (below, at) == ((index,), (index + 1,))


@pytest.fixture
def database_before(empty_database_url: str, tmp_path: Path) -> str:
    """Migrated to what was there before the months and the sums, with rows of four months."""
    folder = tmp_path / "before"
    folder.mkdir()
    for migration in migrations():
        if migration.name != "usage" and migration.version < 5:
            (folder / f"{migration.version:04}_{migration.name}.sql").write_text(migration.sql)
    run(migrate(empty_database_url, folder))
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(
            "INSERT INTO api_usage"
            " SELECT gen_random_uuid(), 'r', '2026-08-31T23:30Z'::timestamptz + n * interval '1 h',"
            " decode(repeat('ab', 32), 'hex'), 'ana', 'reasoning', 'good', 1, 2, false, 200, 0.3"
            " FROM generate_series(0, 1999) AS n"
        )
    return empty_database_url


def test_rows_that_were_there_before_are_in_their_months_and_in_the_sums(database_before: str) -> None:
    assert "usage" in run(migrate(database_before, FOLDER))
    assert counted(database_before) == (2000, 2000, 2000)
    assert stored(database_before, "SELECT count(*) FROM usage_hourly") == (2000,)
    assert stored(database_before, "SELECT count(*) FROM api_usage_2026_08") == (1,)
    assert stored(database_before, "SELECT count(*) FROM api_usage_2026_09") == (720,)
    assert stored(database_before, "SELECT count(*) FROM api_usage_default") == (0,)
