"""What telemetry costs: nodes side by side, each with some of it on, asked the same in turns.

Metrics are always on: the node that the others are compared with has them, and nothing else. A chat whose answer is
known is the dearest question for telemetry: it takes the node the least time of its own, and waits three times.

The turns are short and many, each time in another order: what a machine loses or wins in speed meanwhile meets every
node alike. And a scrape, in a process alone with its event loop (`bench/scrape_load.py`).
"""

import random
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack

from bench.cached import known
from bench.http import get_text
from bench.load import Plan
from bench.machine import SERVER_CORE, quiet
from bench.models import lost_spans
from bench.output import printed
from bench.scenario import Figures, Line, Reach, Round, Scenario, medians, whole
from bench.servers import Server, taskset

CLIENTS = 64  # a full core: what telemetry takes, answers do not have
TURNS, WARM_S = 8, 0.3
# Together they must fit PostgreSQL.
POOL = {"DB_POOL_SIZE": "6", "DB_MAX_OVERFLOW": "0"}
QUIET = POOL | {"ACCESS_LOG_SAMPLE": "0", "LOG_LEVEL": "warning"}
LOUD = POOL | {"ACCESS_LOG_SAMPLE": "1", "LOG_LEVEL": "info"}


def variants(sink: Server) -> Mapping[str, dict[str, str]]:
    """The settings of each node, by its name among the figures."""
    sentry = {"SENTRY_DSN": f"http://key@127.0.0.1:{sink.port}/1"}
    percent, all_ = traced(sink, "0.01"), traced(sink, "1")
    return {
        "metrics": QUIET,
        "one_percent": QUIET | percent,
        "traces": QUIET | all_,
        "logs": LOUD,
        "sentry": QUIET | sentry,
        "everything": LOUD | sentry | percent,
        "everything_traced": LOUD | sentry | all_,
    }


def traced(sink: Server, share: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_TRACES_SAMPLER_ARG": share}


async def measure(round_: Round) -> Figures:
    stage = round_.stage
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(stage.upstream("--delay-ms", "20"))
        sink = await stack.enter_async_context(stage.otlp_sink())
        nodes = {
            name: await stack.enter_async_context(stage.atp(f"{upstream.url}/v1", **settings))
            for name, settings in variants(sink).items()
        }
        question = known(stage)
        for node in [*nodes.values()] * 2:
            await get_text(node, question)  # the answer is known from here on
        figures = await in_turns(nodes, question, round_.seconds / 4)
        figures["lost_spans"] = await lost_spans(nodes["everything_traced"])
    return figures | await scrapes(round_.seconds)


async def in_turns(nodes: Mapping[str, Server], question: str, seconds: float) -> Figures:
    """The medians of each node's turns."""
    found: dict[str, list[Figures]] = {name: [] for name in nodes}
    for _ in range(TURNS):
        for name in random.sample([*nodes], len(nodes)):
            plan = Plan(nodes[name].port, question, CLIENTS, nodes[name].pid, seconds, WARM_S)
            found[name].append(await whole(plan))
    return {f"{name}_{key}": value for name, turns in found.items() for key, value in medians(turns).items()}


async def scrapes(seconds: float) -> Figures:
    await quiet()
    return await printed(*taskset(SERVER_CORE), sys.executable, "-m", "bench.scrape_load", str(seconds))


def line(what: str, name: str, reach: Reach | None = None) -> Line:
    return Line(
        f"cached chat, req/s, c=64, {what}",
        f"{name}_per_s",
        "metrics_per_s",
        "metrics alone",
        "{:,.0f}",
        "{:.0%}",
        reach,
    )


def at_least(share: float) -> Reach:
    return Reach(f">= {share:.0%}", lambda found: found >= share, on_ratio=True)


STALL = Reach("<= 20 ms", lambda ms: ms <= 20)
SCENARIO = Scenario(
    "telemetry",
    measure,
    (
        line("1 % of traces", "one_percent"),
        line("every trace", "traces"),
        line("a log line each", "logs"),
        line("Sentry", "sentry"),
        line("everything on, 1 % of traces", "everything", at_least(0.90)),
        line("everything on, every trace", "everything_traced", at_least(0.75)),
        Line("cached chat, spans lost while all are exported", "lost_spans"),
        Line("scrape, series a process may have at most", "most_series"),
        Line(
            "scrape of as many, ms",
            "most_ms",
            "least_ms",
            "those of a process that has done nothing",
            "{:.1f}",
            "{:.1f}x",
        ),
        Line(
            "scrape of as many series as there may be, longest stall of the loop, ms",
            "most_stall_ms",
            shown="{:.1f}",
            reach=STALL,
        ),
    ),
)
