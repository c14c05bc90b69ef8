"""A chat through ATP, its usage row on disk, and through LiteLLM proxy; against a scripted model that takes 20 ms.

"Added" is the client's quantile minus the same quantile of the same load on the upstream itself, in the same round.
"""

from bench.load import request
from bench.machine import rss_mb
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import LITELLM_KEY, Server, Stage

QUESTION = "What is the capital of France?"
TOKENS = 16
CONCURRENCIES = (1, 16, 64)  # with the last a core is full
LITELLM = "LiteLLM proxy 1.106.2"


def atp_request(stage: Stage, *, known: bool = False, **more: object) -> str:
    """`known`: the cache may answer; else every request asks the model."""
    body = {"agent": "reasoning", "task": QUESTION, **more}
    headers = {} if known else {"cache_control": "no-store"}
    return request("POST", "/api/v1/chat", body, x_api_key=stage.key, **headers)


def openai_request(**more: object) -> str:
    """For LiteLLM and, as a control, for the upstream itself."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": QUESTION}], **more}
    return request("POST", "/v1/chat/completions", body, authorization=f"Bearer {LITELLM_KEY}")


async def measure(round_: Round) -> Figures:
    """The upstream alone, ATP before it, ATP that keeps no usage rows, LiteLLM."""
    stage = round_.stage
    parameters = {"max_tokens": TOKENS}
    async with stage.upstream("--delay-ms", "20") as upstream:
        url = f"{upstream.url}/v1"
        figures = await loads(round_, "direct", upstream, openai_request(**parameters))
        rows = await stage.usage_rows()
        async with stage.atp(url) as atp:
            figures |= await loads(round_, "atp", atp, atp_request(stage, parameters=parameters))
        figures["rows_behind"] = figures["atp_answers"] - (await stage.usage_rows() - rows)
        async with stage.atp(url, program="bench.unrecorded") as unrecorded:
            figures |= await loads(round_, "unrecorded", unrecorded, atp_request(stage, parameters=parameters))
        async with stage.litellm(url) as litellm:
            figures |= await loads(round_, "litellm", litellm, openai_request(**parameters))
    if figures["rows_behind"] > 0:
        raise RuntimeError(f"{figures['rows_behind']:.0f} answers have no usage row")
    return figures | added(figures)


async def loads(round_: Round, name: str, server: Server, question: str) -> Figures:
    figures: Figures = {f"{name}_answers": 0}
    for clients in CONCURRENCIES:
        result = await round_.load(server, question, clients)
        figures |= {f"{name}_c{clients}_{key}": value for key, value in result.items()}
        figures[f"{name}_answers"] += result["count"]
    return figures | {f"{name}_rss_mb": rss_mb(server.pid)}


def added(figures: Figures) -> Figures:
    """Latency beyond the upstream's own, ms."""
    names = [f"c{clients}_p{share}_ms" for clients in CONCURRENCIES for share in (50, 99)]
    return {
        f"{who}_added_{name}": figures[f"{who}_{name}"] - figures[f"direct_{name}"]
        for who in ("atp", "litellm")
        for name in names
    }


def against_litellm(
    what: str, figure: str, shown: str = "{:.1f}", reach: Reach | None = None, shown_ratio: str = "{:.2f}x"
) -> Line:
    return Line(what, f"atp_{figure}", f"litellm_{figure}", LITELLM, shown, shown_ratio, reach)


def against_unrecorded(what: str, figure: str, reach: Reach | None = None) -> Line:
    peer = "ATP without usage rows"
    return Line(what, f"atp_{figure}", f"unrecorded_{figure}", peer, shown_ratio="{:.0%}", reach=reach)


KEPT = Reach(">= 85 %", lambda share: share >= 0.85, on_ratio=True)
FIVE_TIMES = Reach(">= 5x", lambda times: times >= 5, on_ratio=True)
SCENARIO = Scenario(
    "chat",
    measure,
    (
        against_litellm("chat, req/s, c=16", "c16_per_s", "{:,.0f}", FIVE_TIMES, "{:.1f}x"),
        against_litellm("chat, p50 added ms, c=16", "added_c16_p50_ms"),
        against_litellm("chat, p99 added ms, c=16", "added_c16_p99_ms", reach=Reach("<= 25 ms", lambda ms: ms <= 25)),
        against_unrecorded("chat, req/s, a full core (c=64), a durable row each", "c64_per_s", KEPT),
        against_unrecorded("chat, req/s, c=16, a durable row each", "c16_per_s"),
        against_litellm("chat, req/s, c=1", "c1_per_s", shown_ratio="{:.1f}x"),
        against_litellm("chat, p50 added ms, c=1", "added_c1_p50_ms", reach=Reach("<= 4 ms", lambda ms: ms <= 4)),
        against_litellm("chat, p99 added ms, c=1", "added_c1_p99_ms"),
        against_litellm("chat, server CPU us/answer, c=16", "c16_server_cpu_us", "{:,.0f}"),
        against_litellm("chat, server RSS MB", "rss_mb", "{:,.0f}", Reach("< 150 MB", lambda mb: mb < 150)),
    ),
)
