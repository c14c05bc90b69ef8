"""How many streams of 50 tokens/s one core relays on time, through ATP and through LiteLLM.

Every token is the time it was sent, so its lateness needs no second clock. A step of the ramp passes when p99 lateness
is at most LATE_MS and no token is missing. The largest passing step counts: found by doubling, then halving the
interval to 15 %. Streams are finite and come to their own end, so a step starts with a server at rest.
"""

import sys
from collections.abc import Awaitable, Callable

from bench.chat import FIVE_TIMES, against_litellm, atp_request, openai_request
from bench.load import Plan, run_load
from bench.machine import quiet
from bench.scenario import Figures, Line, Round, Scenario
from bench.servers import Server

LATE_MS = 20.0
INTERVAL_MS = 20
TOKENS_PER_S = 1000 / INTERVAL_MS
# Spread over a second at least: LiteLLM opens about 60 a second, and starts must not be what fails a step.
STARTS_PER_S = 100
SETTLE_S = 0.5
MISSING = 0.03  # of the tokens due
TRIES = 2  # a step must fail twice: other jobs share the machine
FIRST, PRECISION = 16, 0.15
WARM_STEPS = 2

Step = Callable[[int], Awaitable[Figures]]


async def measure(round_: Round) -> Figures:
    """The ramp on the upstream itself (at ATP's largest step, as a control), on ATP, on LiteLLM."""
    stage = round_.stage
    async with stage.upstream("--delay-ms", "20", "--interval-ms", str(INTERVAL_MS), "--tokens", "100000") as upstream:
        url = f"{upstream.url}/v1"
        async with stage.atp(url) as atp:
            figures = named("atp", await ramp(step_on(round_, atp, atp_stream(round_)), begin(round_, "atp")))
        most = max(1, round(figures["atp_streams"]))
        figures |= named("direct", await step_on(round_, upstream, openai_stream)(most))
        async with stage.litellm(url) as litellm:
            ramped = await ramp(step_on(round_, litellm, openai_stream), begin(round_, "litellm"))
    return figures | named("litellm", ramped)


def named(who: str, figures: Figures) -> Figures:
    return {f"{who}_{key}": value for key, value in figures.items()}


def begin(round_: Round, who: str) -> int:
    """A step below what an earlier round reached, to spare steps."""
    return max([FIRST, *(round(figures[f"{who}_streams"] * 0.7) for figures in round_.so_far)])


def atp_stream(round_: Round) -> Callable[[int], str]:
    return lambda tokens: atp_request(round_.stage, stream=True, parameters={"max_tokens": tokens})


def openai_stream(tokens: int) -> str:
    return openai_request(stream=True, max_tokens=tokens)


def step_on(round_: Round, server: Server, question: Callable[[int], str]) -> Step:
    """One step: `count` streams opened over time, then looked at for the round's seconds."""

    async def step(count: int) -> Figures:
        spread_s = max(1.0, count / STARTS_PER_S)
        tokens = round((spread_s + SETTLE_S + round_.seconds + 0.2) * TOKENS_PER_S)
        plan = Plan(server.port, question(tokens), count, server.pid, round_.seconds, SETTLE_S, spread_s, streams=True)
        await quiet()
        result = {"streams": count, **await run_load(plan)}
        late = f"p99 {result.get('p99_ms', 0):.1f} ms late, {result['failed']:.0f} cut"
        print(f"bench: {count} streams on port {server.port}: {late}", file=sys.stderr, flush=True)
        return result

    return step


def passes(result: Figures, seconds: float) -> bool:
    due = result["streams"] * TOKENS_PER_S * seconds
    return result["failed"] == 0 and result["count"] >= due * (1 - MISSING) and result["p99_ms"] <= LATE_MS


async def ramp(step: Step, first: int) -> Figures:
    """The figures of the largest passing step; all zero when none passes.

    Two steps before it do not count: in its first ten seconds of streaming LiteLLM stops for 200-600 ms at a time.
    """
    for _ in range(WARM_STEPS):
        await step(FIRST)
    best: Figures = dict.fromkeys(("streams", "p99_ms", "server_cpu_us", "others_share", "cpu_share"), 0.0)
    good, bad, count = 0, 0, first
    while not bad or bad - good > max(1, good * PRECISION):
        passed = await tried(step, count)
        if passed:
            good, best = count, passed
        else:
            bad = count
        count = (good + bad) // 2 if bad else count * 2
    return best


async def tried(step: Step, count: int) -> Figures:
    """The step's figures once it passes; empty when it failed TRIES times."""
    for _ in range(TRIES):
        result = await step(count)
        seconds = result["count"] / result["per_s"] if result["count"] else 1.0
        if passes(result, seconds):
            return result
    return {}


UNMEDIATED = "no server between, as many streams"
SCENARIO = Scenario(
    "streams",
    measure,
    (
        against_litellm("streams of 50 tokens/s, p99 late <= 20 ms", "streams", "{:,.0f}", FIVE_TIMES, "{:.1f}x"),
        Line("streams, p99 late ms at that number", "atp_p99_ms", "direct_p99_ms", UNMEDIATED, "{:.1f}"),
        against_litellm("streams, server CPU us/token at that number", "server_cpu_us", "{:,.0f}"),
    ),
)
