"""A chat whose answer is known: key, limit, cache, a usage row on disk, metrics and an exported span each time.

Against bare Starlette on hypercorn, which reads the same body and returns the same bytes, and against LiteLLM proxy
with its Redis cache and the same hit.
"""

from bench.chat import LITELLM, TOKENS, atp_request, openai_request
from bench.http import get_json, get_text
from bench.load import request
from bench.machine import rss_mb
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import Server, Stage

CLIENTS, FULL = 16, 64  # with the second a core is full, of whatever server
WARM_UP = 10  # look-ups of its state, and what a proxy asks before its cache has taken the first answer
BARE = "bare Starlette on hypercorn"


async def measure(round_: Round) -> Figures:
    """Every answer is a hit: the first request of each server asks the model, before anything is measured."""
    stage = round_.stage
    async with stage.upstream("--delay-ms", "20") as upstream, stage.otlp_sink() as sink:
        url = f"{upstream.url}/v1"
        async with stage.atp(url, otlp_url=sink.url) as atp:
            figures, body = await of_atp(round_, stage, atp)
        async with stage.bare(body) as bare:
            figures |= await loads(round_, "bare", bare, known(stage))
        async with stage.litellm(url, cached=True) as litellm:
            question = openai_request(max_tokens=TOKENS)
            await get_text(litellm, question)
            figures |= await loads(round_, "litellm", litellm, question)
        figures["asked"] = await asked(upstream)
    if figures["asked"] > WARM_UP:
        raise RuntimeError(f"the model was asked {figures['asked']:.0f} times: those were no hits")
    return figures


def known(stage: Stage) -> str:
    return atp_request(stage, known=True, parameters={"max_tokens": TOKENS})


async def of_atp(round_: Round, stage: Stage, atp: Server) -> tuple[Figures, str]:
    question = known(stage)
    await get_text(atp, question)
    body = await get_text(atp, question)
    rows = await stage.usage_rows()
    figures = await loads(round_, "atp", atp, question)
    figures["rows_behind"] = figures["atp_answers"] - (await stage.usage_rows() - rows)
    if figures["rows_behind"] > 0:
        raise RuntimeError(f"{figures['rows_behind']:.0f} answers have no usage row")
    return figures, body


async def loads(round_: Round, name: str, server: Server, question: str) -> Figures:
    figures: Figures = {f"{name}_answers": 0}
    for clients in (1, CLIENTS, FULL):
        result = await round_.load(server, question, clients)
        figures |= {f"{name}_c{clients}_{key}": value for key, value in result.items()}
        figures[f"{name}_answers"] += result["count"]
    spread = figures[f"{name}_c{CLIENTS}_p99_ms"] / figures[f"{name}_c{CLIENTS}_p50_ms"]
    return figures | {f"{name}_rss_mb": rss_mb(server.pid), f"{name}_spread": spread}


async def asked(upstream: Server) -> float:
    """How often, by the model's own count."""
    return float((await get_json(upstream, request("GET", "/stats")))["requests"])


def line(what: str, figure: str, peer: str, shown: str, ratio: str, reach: Reach | None = None) -> Line:
    name = {"bare": BARE, "litellm": f"{LITELLM}, Redis cache"}[peer]
    return Line(f"cached chat, {what}", f"atp_{figure}", f"{peer}_{figure}", name, shown, ratio, reach)


FORTY = Reach(">= 40 %", lambda share: share >= 0.4, on_ratio=True)
TEN_TIMES = Reach(">= 10x", lambda times: times >= 10, on_ratio=True)
SCENARIO = Scenario(
    "cached",
    measure,
    (
        line("req/s, a full core (c=64)", "c64_per_s", "bare", "{:,.0f}", "{:.0%}", FORTY),
        line("req/s, a full core (c=64)", "c64_per_s", "litellm", "{:,.0f}", "{:.1f}x", TEN_TIMES),
        line("req/s, c=16", "c16_per_s", "bare", "{:,.0f}", "{:.0%}"),
        line("req/s, c=16", "c16_per_s", "litellm", "{:,.0f}", "{:.1f}x", TEN_TIMES),
        line("p50 ms, c=16", "c16_p50_ms", "litellm", "{:.1f}", "{:.2f}x"),
        line("p99 ms, c=16", "c16_p99_ms", "litellm", "{:.1f}", "{:.2f}x"),
        Line("cached chat, p99 / p50, c=16", "atp_spread", shown="{:.2f}", reach=Reach("<= 2", lambda x: x <= 2)),
        line("p50 ms, c=1", "c1_p50_ms", "litellm", "{:.1f}", "{:.2f}x"),
        line("server CPU us/answer, c=64", "c64_server_cpu_us", "bare", "{:,.0f}", "{:.2f}x"),
        line("server CPU us/answer, c=16", "c16_server_cpu_us", "bare", "{:,.0f}", "{:.2f}x"),
        line("server RSS MB", "rss_mb", "litellm", "{:,.0f}", "{:.2f}x"),
    ),
)
