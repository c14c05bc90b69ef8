"""What a rate limit costs, and how well it holds across nodes.

1. The limiter's own calls in a process on core 0 (`bench/limiter_load.py`) beside those of the `limits` library, a
   Valkey of their own on core 1.
2. Over-admission: four nodes on core 0 with one limit, and one key that asks at twice that rate, evenly, each node in
   its turn. What counts: how many were admitted in all, and the most that were asked and answered within any window's
   length, so certainly admitted in it. By the time of the answers alone a late one would count as a second window's.
"""

import asyncio
import sys
import time
from bisect import bisect_right
from contextlib import AsyncExitStack

from bench.load import body_bytes, request
from bench.machine import SERVER_CORE, quiet
from bench.output import printed
from bench.scenario import Figures, Line, Reach, Round, Scenario
from bench.servers import MODELS, Server, taskset

NODES, LIMIT, WINDOW_S = 4, 400, 1.0
TIMES = 2  # the limit
WINDOWS = 8
ANSWER_S = 10.0

Asked = tuple[float, float]  # when a request was sent, and when it was answered


async def measure(round_: Round) -> Figures:
    stage = round_.stage
    async with stage.empty_valkey("limiter") as url:
        await quiet()
        command = [*taskset(SERVER_CORE), sys.executable, "-m", "bench.limiter_load", url, str(round_.seconds / 2)]
        figures: Figures = await printed(*command)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(stage.atp(RATE_LIMIT_API=f"{LIMIT}/second")) for _ in range(NODES)]
        await quiet()
        figures |= await over_admission(nodes, request("GET", MODELS, x_api_key=stage.key))
    return figures


async def over_admission(nodes: list[Server], question: str) -> Figures:
    """Asked by so many connections that a late answer puts off no other question."""
    every_s = WINDOW_S / (LIMIT * TIMES)
    askers = NODES * 8
    admitted: list[Asked] = []
    began = time.monotonic() + 0.5
    async with asyncio.TaskGroup() as group:
        for number in range(askers):
            due = [began + every_s * turn for turn in range(number, int(LIMIT * TIMES * WINDOWS), askers)]
            group.create_task(ask(nodes[number % NODES], question, due, admitted))
    most = most_within(sorted(admitted), WINDOW_S)
    return {
        "admitted": len(admitted),
        "over_percent": 100 * max(0.0, len(admitted) / (LIMIT * WINDOWS) - 1),
        "most_in_window": most,
        "window_over_percent": 100 * max(0.0, most / LIMIT - 1),
    }


async def ask(node: Server, question: str, due: list[float], admitted: list[Asked]) -> None:
    """At these moments of the monotonic clock."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        for moment in due:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            asked_at = time.monotonic()
            writer.write(question.encode())
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(body_bytes(head))
            status = head.split(b" ", 2)[1]
            if status not in (b"200", b"429"):
                raise RuntimeError(head.decode())
            if status == b"200":
                admitted.append((asked_at, time.monotonic()))
    finally:
        writer.close()


def most_within(asked: list[Asked], length_s: float) -> int:
    """The most that lie whole in a span of this length; sorted."""
    sent = [moment for moment, _ in asked]
    most = 0
    for first, begins in enumerate(sent):
        ends = begins + length_s
        most = max(most, sum(answered <= ends for _, answered in asked[first : bisect_right(sent, ends)]))
    return most


THEIRS = "limits 5.8 on the same Redis"
CALLERS = (1, 16)
COSTS = (("checks_s", "checks/s"), ("cpu_us", "CPU us a check"), ("p99_us", "p99 us"))
ASKED = f"{NODES} nodes asked for {TIMES}x a limit of {LIMIT} a second"
HOLDS = Reach("<= 2 %", lambda percent: percent <= 2)
HELD = (
    Line(f"{ASKED}, over-admission in {WINDOWS} s, %", "over_percent", shown="{:.1f}", reach=HOLDS),
    Line(f"{ASKED}, over-admission in any second, %", "window_over_percent", shown="{:.1f}", reach=HOLDS),
)


def cost(what: str, figure: str, callers: int) -> Line:
    ours, theirs = f"ours_{callers}_{figure}", f"theirs_{callers}_{figure}"
    return Line(f"limiter, {what}, c={callers}", ours, theirs, THEIRS, "{:,.0f}", "{:.2f}x")


SCENARIO = Scenario(
    "limits", measure, (*(cost(what, key, callers) for callers in CALLERS for key, what in COSTS), *HELD)
)
