"""What a usage report costs as rows grow: 13 months of a hundred users, three agents each, at every size.

The rows are made by SQL and summed as the ledger would have; api_usage has no index here, because no report reads it.
Beyond ROWS_MADE only the sums are made, as so many rows would have left them: each user used each agent every hour
(of which the last 32 days are made) and every day. `Reports` is asked on core 1 beside PostgreSQL.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg

from bench.load import summary
from bench.machine import quiet
from bench.scenario import Figures, Line, Reach, Round, Scenario
from service.db.pool import Database
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.reports import Question, Reports

SIZES, QUICK_SIZES = (10_000, 1_000_000, 10_000_000), (1_000, 10_000)
CALLS, WARM_CALLS = 150, 10
ROWS_MADE = 1_000_000
MONTHS = """
SELECT make_usage_partition(month::date) FROM generate_series(
    date_trunc('month', now() - interval '13 months'), now(), '1 month') AS month"""
LEAVES = """
SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('api_usage'::regclass, 'usage_sums'::regclass)"""
WITHOUT_INDEXES = (
    "ALTER TABLE api_usage DROP CONSTRAINT api_usage_pkey",
    "DROP INDEX idx_api_usage_key_hash",
    "DROP INDEX idx_api_usage_timestamp",
)
FILL = """
INSERT INTO api_usage
SELECT gen_random_uuid(), 'request', now() - random() * interval '395 days', decode(md5(key) || md5(key), 'hex'),
       'user-' || key, 'agent-' || floor(random() * 3), 'good', 20, 30, random() < 0.2, 200, random() * 4, 0.00012
FROM (SELECT floor(random() * 100)::text AS key FROM generate_series(1, %s)) AS keys"""
SUM = """
INSERT INTO usage_sums
SELECT %(span)s, date_trunc(%(span)s, "timestamp", 'UTC'), key_hash, user_id, agent, model, 0, count(*), 0, 0,
       count(*) FILTER (WHERE cached), sum(tokens_in), sum(tokens_out), sum(cost_usd),
       bucket_counts(array_agg(duration_bucket(duration_s)))
FROM api_usage GROUP BY 1, 2, 3, 4, 5, 6"""
EVERY_SUM = """
INSERT INTO usage_sums
SELECT %(span)s, start, decode(md5(key::text) || md5(key::text), 'hex'), 'user-' || key, 'agent-' || agent, 'good', 0,
       %(n)s, 0, 0, %(n)s / 5, 20 * %(n)s, 30 * %(n)s, 0.00012 * %(n)s, array_fill(%(n)s / 27 + 1, ARRAY[27])
FROM generate_series(date_trunc(%(span)s, now(), 'UTC') - make_interval(days => %(days)s),
                     date_trunc(%(span)s, now(), 'UTC'), ('1 ' || %(span)s)::interval) AS start,
     generate_series(0, 99) AS key, generate_series(0, 2) AS agent"""
DAYS, HOURLY_DAYS, CELLS = 395, 32, 300
# What is asked, by name: the interval, days back, grouped by, whose.
ASKED = {
    "own_days": ("day", 30, ("agent",), "user-7"),
    "own_hours": ("hour", 31, (), "user-7"),
    "all_days": ("day", 30, ("agent",), None),
    "all_year": ("total", 395, ("user",), None),
}
SAID = {
    "own_days": "one user, 30 days by day and agent",
    "own_hours": "one user, 31 days by hour",
    "all_days": "all users, 30 days by day and agent",
    "all_year": "all users, 395 days in total by user",
}


async def measure(sizes: Sequence[int], round_: Round) -> Figures:
    figures: Figures = {}
    async with round_.stage.database("usage") as dsn:
        prepare(dsn)
        rows = 0
        for size in sizes:
            began = time.monotonic()
            if size > ROWS_MADE:
                await asyncio.to_thread(fill_sums, dsn, size)
            else:
                await asyncio.to_thread(fill, dsn, size - rows)
                rows = size
            figures[f"{size}_fill_s"] = time.monotonic() - began
            await quiet()
            figures |= {f"{size}_{name}": value for name, value in (await ask(dsn)).items()}
    return figures


def prepare(dsn: str) -> None:
    """Nothing here outlives the bench, so nothing of it is written twice; reading is the same."""
    with psycopg.connect(dsn) as connection:
        for statement in (MONTHS, *WITHOUT_INDEXES):
            connection.execute(statement.encode())
        for (leaf,) in connection.execute(LEAVES).fetchall():
            connection.execute(f"ALTER TABLE {leaf} SET UNLOGGED".encode())


def fill(dsn: str, count: int) -> None:
    """So many rows more, then the sums of all."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET work_mem = '256MB'")
        connection.execute(FILL.encode(), (count,))
        connection.execute("TRUNCATE usage_sums")
        for span in ("hour", "day"):
            connection.execute(SUM.encode(), {"span": span})
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE usage_sums")


def fill_sums(dsn: str, rows: int) -> None:
    """The sums that so many rows leave, without the rows."""
    with psycopg.connect(dsn) as connection:
        connection.execute("TRUNCATE usage_sums")
        for span, days, spans in (("hour", HOURLY_DAYS, 24 * DAYS), ("day", DAYS, DAYS)):
            connection.execute(EVERY_SUM.encode(), {"span": span, "days": days, "n": rows // (spans * CELLS)})
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE usage_sums")


async def ask(dsn: str) -> Figures:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    figures: Figures = {}
    async with Database(load(database_url=dsn, db_pool_size=1, db_timeout=20), Metrics()) as db:
        for name, (interval, days, group_by, user) in ASKED.items():
            end = now if interval == "hour" else now.replace(hour=0) + timedelta(days=1)
            question = Question(end - timedelta(days=days), end, interval, group_by, user)  # type: ignore[arg-type]  # ASKED holds texts; Question has their literals
            figures |= {f"{name}_{key}": value for key, value in (await asked(Reports(db), question)).items()}
    return figures


async def asked(reports: Reports, question: Question) -> Figures:
    took_us = []
    for _ in range(WARM_CALLS + CALLS):
        began = time.perf_counter()
        await reports.report(question)
        took_us.append(round(1e6 * (time.perf_counter() - began)))
    return summary(sorted(took_us[WARM_CALLS:]))


def lines(sizes: Sequence[int]) -> tuple[Line, ...]:
    return tuple(
        Line(
            f"{size:,} rows, {said}, {key.removesuffix('_ms')} ms",
            f"{size}_{name}_{key}",
            f"{sizes[0]}_{name}_{key}",
            f"at {sizes[0]:,} rows",
            "{:.1f}",
            "{:.1f}x",
            Reach("<= 200", lambda took_ms: took_ms <= 200) if size == sizes[-1] and key == "p50_ms" else None,
        )
        for size in sizes
        for name, said in SAID.items()
        for key in ("p50_ms", "p99_ms")
    )


def scenario(sizes: Sequence[int]) -> Scenario:
    return Scenario("usage", partial(measure, sizes), lines(sizes))
