"""What telemetry costs: one node after another, each with some of it on, asked the same.

Metrics are always on: the node that the others are compared with has them, and nothing else. A chat whose answer is
known is the dearest question for telemetry: it takes the node the least time of its own, and waits twice.
"""

from collections.abc import Mapping

from bench.cached import known
from bench.http import get_text
from bench.models import lost_spans
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import Server, Stage

CLIENTS = 64  # a full core: what telemetry takes, answers do not have
QUIET = {"ACCESS_LOG_SAMPLE": "0", "LOG_LEVEL": "warning"}
LOUD = {"ACCESS_LOG_SAMPLE": "1", "LOG_LEVEL": "info"}


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
    stage, figures = round_.stage, Figures()
    async with stage.upstream("--delay-ms", "20") as upstream, stage.otlp_sink() as sink:
        for name, settings in variants(sink).items():
            async with stage.atp(f"{upstream.url}/v1", **settings) as atp:
                figures |= await of_node(round_, stage, name, atp)
                if name == "everything_traced":
                    figures["lost_spans"] = await lost_spans(atp)
    return figures


async def of_node(round_: Round, stage: Stage, name: str, atp: Server) -> Figures:
    question = known(stage)
    for _ in range(2):
        await get_text(atp, question)  # the answer is known from here on
    result = await round_.load(atp, question, CLIENTS)
    return {f"{name}_{key}": value for key, value in result.items()}


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
    ),
)
