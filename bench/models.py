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


def against_bare(what: str, kind: str, figure: str, shown: str = "{:,.0f}", reach: Reach | None = None) -> Line:
    shown_ratio = "{:.0%}" if figure == "per_s" else "{:.2f}x"
    return Line(what, f"{kind}_{figure}", f"bare_{figure}", "bare Starlette on hypercorn", shown, shown_ratio, reach)


SIXTY = Reach(">= 60 %", lambda share: share >= 0.6, on_ratio=True)
SCENARIO = Scenario(
    "models",
    measure,
    (
        against_bare("models, req/s, c=16, every trace exported", "traced", "per_s", reach=SIXTY),
        against_bare("models, req/s, c=16, tracing off", "plain", "per_s"),
        against_bare("models, p99 ms, c=16, every trace exported", "traced", "p99_ms", "{:.1f}"),
        against_bare("models, server CPU us/request, every trace exported", "traced", "server_cpu_us"),
        against_bare("models, server CPU us/request, tracing off", "plain", "server_cpu_us"),
        Line("models, spans lost while exporting", "lost_spans"),
    ),
)
