"""`GET /api/v1/models` through context, auth, metrics, span and log, against bare Starlette on plain hypercorn."""

from bench.http import get_json, get_text
from bench.load import request
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import MODELS, Server

CLIENTS = 16
EXPORT_S = 6.0  # the SDK's exporter waits up to 5 s before it sends a batch that is not full


async def measure(round_: Round) -> Figures:
    """Bare, ATP with every trace exported to a collector, ATP without tracing: each alone on its core."""
    stage = round_.stage
    question = request("GET", MODELS, x_api_key=stage.key)
    figures: Figures = {}
    async with stage.atp() as atp:
        body = await get_text(atp, question)
        figures |= named("plain", await round_.load(atp, question, CLIENTS))
    async with stage.bare(body) as bare:
        figures |= named("bare", await round_.load(bare, question, CLIENTS))
    async with stage.otlp_sink() as sink:
        async with stage.atp(otlp_url=sink.url) as atp:
            figures |= named("traced", await round_.load(atp, question, CLIENTS))
            figures["lost_spans"] = await lost_spans(atp)
        figures["spans"] = (await get_json(sink, request("GET", "/spans")))["spans"]  # ATP has left, all are sent
    if not figures["spans"]:
        raise RuntimeError("ATP exported no span: the traced figure would be worth nothing")
    return figures


def named(prefix: str, result: Figures) -> Figures:
    return {f"{prefix}_{key}": value for key, value in result.items()}


async def lost_spans(atp: Server) -> float:
    """By ATP's own count on its private port."""
    text = await get_text(Server(atp.private_port, atp.pid), request("GET", "/metrics"))
    line = next(line for line in text.splitlines() if line.startswith('atp_telemetry_dropped_total{signal="traces"}'))
    return float(line.split()[1])


SIXTY = Reach(">= 60 %", lambda share: share >= 0.6, on_ratio=True)
BARE = "bare Starlette on hypercorn"

SCENARIO = Scenario(
    "models",
    measure,
    (
        Line("models, req/s, c=16, every trace exported", "traced_per_s", "bare_per_s", BARE, "{:,.0f}", "{:.0%}", SIXTY),
        Line("models, req/s, c=16, tracing off", "plain_per_s", "bare_per_s", BARE, "{:,.0f}", "{:.0%}"),
        Line("models, server CPU us/request, traced", "traced_server_cpu_us", "bare_server_cpu_us", BARE, "{:,.0f}"),
        Line("models, server CPU us/request, tracing off", "plain_server_cpu_us", "bare_server_cpu_us", BARE, "{:,.0f}"),
        Line("models, p99 ms, c=16, traced", "traced_p99_ms", "bare_p99_ms", BARE, "{:.1f}"),
        Line("models, spans lost while exporting", "lost_spans"),
    ),
)
