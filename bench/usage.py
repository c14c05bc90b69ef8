"""What a usage report costs as the table grows: 13 months of a hundred users, three agents each, at every size.

One user, who is asked about, has the same rows at every size, all of the last month: does his report cost more because
others' rows are many? The reports about everybody show what it costs when everybody has used more.

Rows are made by SQL and summed as the ledger would have; api_usage has no index here, because no report reads it.
`Reports` is asked on core 1 beside PostgreSQL, with the collector set as a node sets it.
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
from service.serving import tune_interpreter
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.reports import Question, Reports

SIZES, QUICK_SIZES = (10_000, 1_000_000, 10_000_000), (1_000, 10_000)
CALLS, WARM_CALLS = 150, 10
OWN_ROWS, OWN_DAYS, DAYS = 3_000, 31, 395
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
USERS = """
CREATE TABLE bench_users AS
SELECT number, 'user-' || number AS user_id, decode(md5(number::text) || md5(number::text), 'hex') AS key_hash
FROM generate_series(0, 99) AS number"""
FILL = """
INSERT INTO api_usage
SELECT gen_random_uuid(), 'request', at, key_hash, user_id, 'agent-' || agent, 'good', 20, 30, cached, 200, duration_s,
       0.00012
FROM (SELECT %(first)s + floor(random() * %(users)s)::int AS number, floor(random() * 3)::int AS agent,
             now() - random() * make_interval(days => %(days)s) AS at, random() < 0.2 AS cached,
             random() * 4 AS duration_s
      FROM generate_series(1, %(rows)s)) AS made JOIN bench_users USING (number)"""
# Hourly sums are kept as long as a report may ask for them here, and a day.
SUM = """
INSERT INTO usage_sums
SELECT %(span)s, date_trunc(%(span)s, "timestamp", 'UTC'), key_hash, user_id, agent, model, 0, count(*), 0, 0,
       count(*) FILTER (WHERE cached), sum(tokens_in), sum(tokens_out), sum(cost_usd),
       bucket_counts(array_agg(duration_bucket(duration_s)))
FROM api_usage WHERE "timestamp" >= now() - make_interval(days => %(days)s) GROUP BY 1, 2, 3, 4, 5, 6"""
SUMMED_DAYS = {"hour": OWN_DAYS + 1, "day": DAYS + 1}
OWN = "user-0"
# What is asked, by name: the interval, days back, grouped by, whose.
ASKED = {
    "own_days": ("day", 30, ("agent",), OWN),
    "own_hours": ("hour", 31, (), OWN),
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
            await asyncio.to_thread(fill, dsn, size - rows, own=not rows)
            rows = size
            figures[f"{size}_fill_s"] = time.monotonic() - began
            await quiet()
            figures |= {f"{size}_{name}": value for name, value in (await ask(dsn)).items()}
    return figures


def prepare(dsn: str) -> None:
    """Nothing here outlives the bench, so nothing of it is written twice; reading is the same."""
    with psycopg.connect(dsn) as connection:
        for statement in (MONTHS, USERS, *WITHOUT_INDEXES):
            connection.execute(statement.encode())
        for (leaf,) in connection.execute(LEAVES).fetchall():
            connection.execute(f"ALTER TABLE {leaf} SET UNLOGGED".encode())


def fill(dsn: str, rows: int, own: bool) -> None:
    """So many rows more, of them the asked user's when `own`; then the sums of all."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET work_mem = '512MB'")
        if own:
            rows -= OWN_ROWS
            connection.execute(FILL.encode(), {"first": 0, "users": 1, "days": OWN_DAYS, "rows": OWN_ROWS})
        connection.execute(FILL.encode(), {"first": 1, "users": 99, "days": DAYS, "rows": rows})
        connection.execute("TRUNCATE usage_sums")
        for span, days in SUMMED_DAYS.items():
            connection.execute(SUM.encode(), {"span": span, "days": days})
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE usage_sums")


async def ask(dsn: str) -> Figures:
    tune_interpreter()
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


SAME = Reach("<= 1.5x", lambda times: times <= 1.5, on_ratio=True)
BELOW_50 = Reach("< 50 ms", lambda took_ms: took_ms < 50)


def lines(sizes: Sequence[int]) -> tuple[Line, ...]:
    return tuple(
        Line(
            f"{size:,} rows, {said}, {key.removesuffix('_ms')} ms",
            f"{size}_{name}_{key}",
            f"{sizes[0]}_{name}_{key}",
            f"at {sizes[0]:,} rows",
            "{:.1f}",
            "{:.2f}x",
            reach(name, key) if size == sizes[-1] else None,
        )
        for size in sizes
        for name, said in SAID.items()
        for key in ("p50_ms", "p99_ms")
    )


def reach(name: str, key: str) -> Reach | None:
    if not name.startswith("own"):
        return None
    return SAME if key == "p50_ms" else BELOW_50


def scenario(sizes: Sequence[int]) -> Scenario:
    return Scenario("usage", partial(measure, sizes), lines(sizes), once=True)
