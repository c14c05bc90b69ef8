"""What a scenario is: how one round of it is measured, and which lines of the table it gives."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.load import Plan, run_load
from bench.machine import quiet
from bench.servers import Server, Stage

Figures = dict[str, float]
ATTEMPTS = 3
OTHERS_SHARE_MAX = 0.05  # of the server's core; above it a load is run again, and the quietest attempt counts


@dataclass(frozen=True)
class Reach:
    """A bound that the issue sets, on a line's ATP figure or on its ratio to the peer."""

    text: str
    met: Callable[[float], bool]
    on_ratio: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table; `atp` and `peer` name figures of a round, `shown` formats both."""

    what: str
    atp: str
    peer: str = ""
    peer_name: str = ""
    shown: str = "{:,.0f}"
    shown_ratio: str = "{:.1f}x"
    reach: Reach | None = None


@dataclass(frozen=True)
class Scenario:
    """`measure` is one round: it starts its servers one at a time on the server's core, and returns its figures.

    `once`: measured in the last round only: what takes minutes to make, and leaves the disk busy.
    """

    name: str
    measure: Callable[["Round"], Awaitable[Figures]]
    lines: Sequence[Line]
    once: bool = False


@dataclass(frozen=True)
class Round:
    """What a scenario measures with. `so_far` are the figures of earlier rounds: where a ramp may begin."""

    stage: Stage
    seconds: float
    so_far: Sequence[Figures] = ()

    async def load(self, server: Server, request: str, clients: int) -> Figures:
        """A closed loop of `clients`; on a busy machine the quietest of a few attempts."""
        plan = Plan(server.port, request, clients, server.pid, self.seconds)
        return await quietest(plan)


async def whole(plan: Plan) -> Figures:
    """Run once, when the machine is quiet; RuntimeError when a request fails."""
    await quiet()
    result = await run_load(plan)
    if result["failed"]:
        raise RuntimeError(f"{result['failed']:.0f} of {result['count']:.0f} requests failed: {plan}")
    return result


async def quietest(plan: Plan) -> Figures:
    best: Figures = {}
    for _ in range(ATTEMPTS):
        result = await whole(plan)
        if not best or result["others_share"] < best["others_share"]:
            best = result
        if best["others_share"] <= OTHERS_SHARE_MAX:
            break
    return best


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def ratio(line: Line, rounds: Sequence[Mapping[str, float]]) -> float:
    """The median of the rounds' ratios: within a round both sides met the same machine."""
    return statistics.median(figures[line.atp] / figures[line.peer] for figures in rounds)
