"""Who is online, as sessions grow: how soon it is told, what a session costs Redis, how many come and go a second.

The tracker's own calls in a process on core 0 (`bench/presence_load.py`), a Valkey of its own on core 1.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial

from bench.machine import SERVER_CORE, quiet
from bench.output import printed
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import taskset

SIZES, QUICK_SIZES = (1_000, 100_000, 1_000_000), (1_000, 10_000, 50_000)


async def measure(sizes: Sequence[int], round_: Round) -> Figures:
    stage = round_.stage
    async with stage.empty_valkey("presence") as url, stage.empty_valkey("presence-least") as least_url:
        await quiet()
        plan = {"url": url, "least_url": least_url, "sizes": sizes, "seconds": round_.seconds}
        command = [*taskset(SERVER_CORE), sys.executable, "-m", "bench.presence_load", json.dumps(plan)]
        by_size = await printed(*command)
    return {f"{size}_{name}": value for size, figures in by_size.items() for name, value in figures.items()}


def lines(sizes: Sequence[int]) -> tuple[Line, ...]:
    return tuple(line for size in sizes for line in of_size(size, sizes[0], size == sizes[-1]))


def of_size(size: int, least: int, largest: bool) -> list[Line]:
    flat = Reach("<= 1.2x", lambda times: times <= 1.2, on_ratio=True) if largest else None
    small = Reach("<= 250", lambda each: each <= 250) if largest else None
    where, first = f"{size:,} sessions", f"with {least:,}, by turns"
    return [
        Line(
            f"{where}, stats p50 ms",
            f"{size}_stats_p50_ms",
            f"{size}_least_stats_p50_ms",
            first,
            "{:.2f}",
            "{:.2f}x",
            flat,
        ),
        Line(
            f"{where}, stats p99 ms", f"{size}_stats_p99_ms", f"{size}_least_stats_p99_ms", first, "{:.2f}", "{:.2f}x"
        ),
        Line(f"{where}, Redis bytes each", f"{size}_bytes_each", reach=small),
        Line(
            f"{where}, joins with their leaves/s, c=64",
            f"{size}_pairs_per_s",
            f"{size}_bare_pairs_per_s",
            "the script alone, a call each",
            "{:,.0f}",
            "{:.2f}x",
        ),
    ]


def scenario(sizes: Sequence[int]) -> Scenario:
    return Scenario("presence", partial(measure, sizes), lines(sizes))
