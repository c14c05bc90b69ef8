"""Whose task is next: everybody's n-th waiting task comes after everybody's (n-1)-th.

A task's turn is a moment in seconds: now, or an hour after the turn of the last task that its user has waiting,
whichever is later. The engine starts what has the smallest turn first. So ten thousand tasks of one user spread over
the next fourteen months, and another's first task stands before all but the first of them.

It is virtual clock scheduling (Zhang, "VirtualClock: a new traffic control algorithm for packet switching networks",
1991) in which a user whose queue is empty starts anew, so that whoever used idle workers owes nothing for it.

Priority orders a user's own tasks: a task stands behind those of his that are at least as urgent, and before the
others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

TURN_S = 3600
# So that turns fit the engine's 32-bit priorities until 2093, whatever waits.
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
LATEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """A user's tasks that wait or run: how many, and the last turn among those of a priority (1, 0, -1) that wait."""

    count: int
    last: dict[int, int]


def seconds(moment: datetime) -> int:
    return int((moment - EPOCH).total_seconds())


def turns(now: datetime, waiting: Waiting, asked: Sequence[tuple[int, datetime | None]]) -> list[int]:
    """The turns of new tasks, each given as its priority and the moment before which it must not start."""
    last, found = dict(waiting.last), []
    for priority, not_before in asked:
        ahead = [turn for other, turn in last.items() if other >= priority]
        starts = seconds(max(now, not_before or now))
        turn = min(max([starts, *(before + TURN_S for before in ahead)]), LATEST)
        if not_before is None or not_before <= now:
            last[priority] = turn
        found.append(turn)
    return found
