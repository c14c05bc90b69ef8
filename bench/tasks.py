"""What the tasks cost beside the engine they stand on, how soon one starts, and whether others' tasks delay it.

Rate: tasks submitted over the API, worked off by one `atp worker` against a model that answers at once; from the first
start to the last end, as their rows say. Each has its result and its usage row. The bare engine works off as many jobs
that do nothing, with as many at a time, on the same PostgreSQL and core.

Start: a lone user's task, one after another, with nothing else in the queue; with others' that may not start for
a week; and behind those of another user that keep every place of the worker busy. There it is counted from when a
place became free, which is the first end of a task since it was made.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg

from bench.load import summary
from bench.machine import SERVER_CORE, core_busy_s, cpu_s, quiet
from bench.output import printed
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import Stage, taskset
from bench.task_client import Lone, TaskClient

CONCURRENCY = 16  # while starts are measured
FULL = 64  # while the rate is: as many as keep a worker's core full while some wait for their model
TASKS, QUICK_TASKS = 3_000, 500
WARM = 500  # worked off first, by a worker of their own: the first thousand commits of a new PostgreSQL are slow
SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (100, 1_000)
IDLE, WAITING = 200, 40  # lone tasks
BUSY_MS = 500  # the model's time while the worker is to be busy
AHEAD = timedelta(days=7)
PATIENCE_S = 120.0
NODE = {"TASKS_PER_USER": "1000000"}
EMPTY = "TRUNCATE tasks, task_submissions, procrastinate_jobs CASCADE"
SELECT_OPEN = "SELECT count(*) FROM tasks WHERE status IN ('queued', 'running')"
SELECT_RATE = """
SELECT count(*) FILTER (WHERE status = 'done' AND result IS NOT NULL), min(started_at), max(finished_at) FROM tasks"""


async def measure(tasks: int, sizes: Sequence[int], round_: Round) -> Figures:
    stage = round_.stage
    keys = [await stage.new_user(f"{name}-{len(round_.so_far)}") for name in ("many", "lone")]
    figures = await bare_rate(stage, tasks)
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as rows:
        async with stage.upstream("--delay-ms", "0") as upstream, stage.atp(**NODE) as node:
            many, lone = (TaskClient(node, key, rows) for key in keys)
            url = f"{upstream.url}/v1"
            for number in (WARM, tasks):
                figures |= await rate(stage, many, rows, number, url)
            async with emptied(rows), stage.worker(url, CONCURRENCY):
                figures |= await idle(many, lone, sizes)
        async with stage.upstream("--delay-ms", str(BUSY_MS)) as upstream, stage.atp(**NODE) as node:
            many, lone = (TaskClient(node, key, rows) for key in keys)
            async with emptied(rows):
                figures |= await busy(stage, many, lone, sizes, f"{upstream.url}/v1")
    return figures


async def bare_rate(stage: Stage, jobs: int) -> Figures:
    async with stage.database("engine") as dsn:
        for number in (WARM, jobs):
            await quiet()
            plan = json.dumps({"dsn": dsn, "jobs": number, "concurrency": FULL})
            found = await printed(*taskset(SERVER_CORE), sys.executable, "-m", "bench.bare_engine", plan)
    return {f"bare_{key}": value for key, value in found.items()}


async def rate(
    stage: Stage, many: TaskClient, rows: psycopg.AsyncConnection[Any], tasks: int, upstream_url: str
) -> Figures:
    """All are submitted before the worker begins."""
    used = await stage.usage_rows()
    async with emptied(rows):
        await many.submit(tasks)
        await quiet()
        async with stage.worker(upstream_url, FULL) as worker:
            cpu_began, busy_began = cpu_s(worker.pid), core_busy_s(SERVER_CORE)
            left = await value(rows, SELECT_OPEN)
            await worked_off(rows)
            own_s = cpu_s(worker.pid) - cpu_began
            others_s = core_busy_s(SERVER_CORE) - busy_began - own_s
        done, began, ended = await one_row(rows, SELECT_RATE)
    used = await stage.usage_rows() - used
    if done != tasks or used < tasks:
        raise RuntimeError(f"of {tasks} tasks {done} have a result, {used} a usage row")
    taken_s = (ended - began).total_seconds()
    share = max(0.0, others_s) / taken_s
    return {"per_s": tasks / taken_s, "server_cpu_us": 1e6 * own_s / max(1, left), "others_share": share}


async def worked_off(rows: psycopg.AsyncConnection[Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await value(rows, SELECT_OPEN):
            await asyncio.sleep(0.1)


async def idle(many: TaskClient, lone: TaskClient, sizes: Sequence[int]) -> Figures:
    """One at a time: with nothing else, then with ever more that others may not start yet."""
    await starts(lone, WAITING)  # warm
    figures, submitted = told("idle", await starts(lone, IDLE)), 0
    not_before = (datetime.now(UTC) + AHEAD).isoformat()
    for size in sizes:
        await many.submit(size - submitted, not_before=not_before)
        submitted = size
        await quiet()
        figures |= told(f"later_{size}", await starts(lone, IDLE))
    return figures


async def busy(stage: Stage, many: TaskClient, lone: TaskClient, sizes: Sequence[int], url: str) -> Figures:
    """Behind another user's: every place of the worker is taken, and more wait."""
    figures: Figures = {}
    submitted = 0
    for size in sizes:
        await many.submit(size - submitted)
        submitted = size
        async with stage.worker(url, CONCURRENCY):
            await quiet()
            await starts(lone, CONCURRENCY)  # until every place has been taken
            figures |= told(f"behind_{size}", await starts(lone, WAITING))
    return figures


async def starts(lone: TaskClient, tasks: int) -> list[Lone]:
    return [await lone.lone() for _ in range(tasks)]


def told(name: str, found: Sequence[Lone]) -> Figures:
    """Milliseconds from the request and from its answer to the start, and from when there was a place."""
    spans = {
        "": [round(1e6 * (one.started - one.asked)) for one in found],
        "accepted_": [round(1e6 * (one.started - one.accepted)) for one in found],
        "free_": [one.from_free_us for one in found],
    }
    return {f"{name}_{span}{key}": value for span, us in spans.items() for key, value in summary(sorted(us)).items()}


@asynccontextmanager
async def emptied(rows: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Nothing in the queue before and after."""
    await rows.execute(EMPTY)
    try:
        yield
    finally:
        await rows.execute(EMPTY)


async def one_row(rows: psycopg.AsyncConnection[Any], sql: str) -> tuple[Any, ...]:
    row = await (await rows.execute(sql.encode())).fetchone()
    assert row is not None
    return tuple(row)


async def value(rows: psycopg.AsyncConnection[Any], sql: str) -> int:
    return int((await one_row(rows, sql))[0])


HALF = Reach(">= 50 %", lambda times: times >= 0.5, on_ratio=True)
BELOW_50 = Reach("< 50 ms", lambda took_ms: took_ms < 50)
TWICE = Reach("<= 2x", lambda times: times <= 2, on_ratio=True)
A_SECOND = Reach("< 1,000 ms", lambda took_ms: took_ms < 1000)
ENGINE = "procrastinate alone, no-op jobs"


def lines(sizes: Sequence[int]) -> tuple[Line, ...]:
    return (
        Line(f"tasks/s, {FULL} at a time", "per_s", "bare_per_s", ENGINE, "{:,.0f}", "{:.0%}", HALF),
        Line("own CPU us a task", "server_cpu_us", "bare_server_cpu_us", ENGINE),
        Line("idle: request to start, p50 ms", "idle_p50_ms", shown="{:.1f}", reach=BELOW_50),
        Line("idle: request to start, p99 ms", "idle_p99_ms", shown="{:.1f}"),
        Line("idle: 202 to start, p50 ms", "idle_accepted_p50_ms", shown="{:.1f}"),
        Line("idle: 202 to start, p99 ms", "idle_accepted_p99_ms", shown="{:.1f}"),
        *(line for size in sizes for line in queued(size, sizes)),
    )


def queued(size: int, sizes: Sequence[int]) -> tuple[Line, ...]:
    """Start with so many of another user's."""
    later, behind, least = f"later_{size}", f"behind_{size}", sizes[0]
    beside, reach = f"with {least:,}", TWICE if size == sizes[-1] else None
    return (
        Line(
            f"start with {size:,} scheduled, p50 ms",
            f"{later}_p50_ms",
            f"later_{least}_p50_ms",
            beside,
            "{:.1f}",
            "{:.2f}x",
            reach,
        ),
        Line(f"start with {size:,} scheduled, p99 ms", f"{later}_p99_ms", shown="{:.1f}"),
        Line(
            f"start behind {size:,} of another's, after a place is free, p50 ms",
            f"{behind}_free_p50_ms",
            f"behind_{least}_free_p50_ms",
            beside,
            "{:.1f}",
            "{:.2f}x",
            reach,
        ),
        Line(f"start behind {size:,} of another's, p99 ms", f"{behind}_free_p99_ms", shown="{:.1f}", reach=A_SECOND),
    )


def scenario(tasks: int, sizes: Sequence[int]) -> Scenario:
    return Scenario("tasks", partial(measure, tasks, sizes), lines(sizes))
