"""What a durable usage row costs: rows a second, and the wait for the commit, by callers at the same time.

The ledger's own calls in a process on core 0 (`bench/ledger_load.py`), PostgreSQL with fsync on core 1. Beside it the
same rows without the hourly and daily sums.
"""

import json
import sys

from bench.machine import SERVER_CORE, quiet
from bench.output import printed
from bench.scenario import Figures, Line, Round, Scenario
from bench.servers import taskset

CALLERS = (1, 16, 256)
BARE = "rows without sums"


async def measure(round_: Round) -> Figures:
    figures: Figures = {}
    for name, sums in (("", True), ("bare_", False)):
        async with round_.stage.database(f"ledger_{name}") as dsn:
            await quiet()
            plan = json.dumps({"dsn": dsn, "seconds": round_.seconds, "sums": sums})
            found = await printed(*taskset(SERVER_CORE), sys.executable, "-m", "bench.ledger_load", plan)
        for callers, values in found.items():
            figures |= {f"{name}c{callers}_{key}": value for key, value in values.items()}
    return figures


def lines() -> tuple[Line, ...]:
    shown = (
        ("rows_per_s", "usage rows/s", "{:,.0f}"),
        ("p50_ms", "row p50 ms", "{:.2f}"),
        ("p99_ms", "row p99 ms", "{:.2f}"),
    )
    return tuple(
        Line(f"{what}, c={callers}", f"c{callers}_{key}", f"bare_c{callers}_{key}", BARE, form, "{:.2f}x")
        for callers in CALLERS
        for key, what, form in shown
    ) + tuple(Line(f"own CPU us a row, c={callers}", f"c{callers}_cpu_us") for callers in CALLERS)


SCENARIO = Scenario("ledger", measure, lines())
