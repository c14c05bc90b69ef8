"""What a rate limit costs, and how well it holds across nodes.

1. The limiter's own calls in a process on core 0 (`bench/limiter_load.py`) beside those of the `limits` library, a
   Valkey of their own on core 1.
2. Over-admission: four nodes on core 0 with one limit, and one key that asks at twice that rate, evenly, each node in
   its turn. What counts is the most that was admitted within any window's length, by the time of the answer.
"""

import asyncio
import sys
import time
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
    admitted: list[float] = []
    refused: list[float] = []
    began = time.monotonic() + 0.5
    async with asyncio.TaskGroup() as group:
        for number in range(askers):
            due = [began + every_s * turn for turn in range(number, int(LIMIT * TIMES * WINDOWS), askers)]
            group.create_task(ask(nodes[number % NODES], question, due, admitted, refused))
    most = most_within(sorted(admitted), WINDOW_S)
    return {
        "most_in_window": most,
        "over_percent": 100 * max(0, most - LIMIT) / LIMIT,
        "admitted": len(admitted),
        "refused": len(refused),
    }


async def ask(node: Server, question: str, due: list[float], admitted: list[float], refused: list[float]) -> None:
    """At these moments of the monotonic clock; takes the time of each answer by what it was."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        for moment in due:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            writer.write(question.encode())
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(body_bytes(head))
            status = head.split(b" ", 2)[1]
            if status not in (b"200", b"429"):
                raise RuntimeError(head.decode())
            (admitted if status == b"200" else refused).append(time.monotonic())
    finally:
        writer.close()


def most_within(moments: list[float], length_s: float) -> int:
    """The most of the sorted moments that lie in a span shorter than this."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - length_s:
            first += 1
        most = max(most, last - first + 1)
    return most


THEIRS = "limits 5.8 on the same Redis"
CALLERS = (1, 16)
COSTS = (("checks_s", "checks/s"), ("cpu_us", "CPU us a check"), ("p99_us", "p99 us"))
HELD = Line(
    f"{NODES} nodes asked for {TIMES}x a limit of {LIMIT} a second, over-admission %",
    "over_percent",
    shown="{:.1f}",
    reach=Reach("<= 2 %", lambda percent: percent <= 2),
)


def cost(what: str, figure: str, callers: int) -> Line:
    ours, theirs = f"ours_{callers}_{figure}", f"theirs_{callers}_{figure}"
    return Line(f"limiter, {what}, c={callers}", ours, theirs, THEIRS, "{:,.0f}", "{:.2f}x")


SCENARIO = Scenario(
    "limits", measure, (*(cost(what, key, callers) for callers in CALLERS for key, what in COSTS), HELD)
)
