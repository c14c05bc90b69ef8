"""Windows that all nodes share, one key for each caller, policy and length of window.

A key, `atp:limit:{<subject>}:<policy>:<window_s>`, is a string that has both windows (see lua/hit.lua), so they are
never in two slots. The limit is not in the name: when it is changed, what was used stays used.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.limits.hits import Hit, Outcome
from service.limits.window import Window
from service.state.redis import RedisState
from service.state.scripts import Script

# One call holds Redis for about 1 ms at the most.
CALL_HITS = 250


class RedisWindows:
    """Implements Windows. One server takes many hits in one call; in a cluster each key has its own, all pipelined."""

    def __init__(self, redis: RedisState) -> None:
        self._redis = redis
        self._script = Script(Path(__file__).parent / "lua" / "hit.lua")

    async def hit(self, hits: Sequence[Hit]) -> list[Outcome]:
        """Raises StateUnavailable or StateRejected; some hits may have been counted then."""
        groups = by_key(hits) if self._redis.sharded else in_turn(len(hits))
        calls = [call([hits[at] for at in group]) for group in groups]
        answers = await self._redis.run("limit_hit", lambda r: self._script.call_each(r, calls))
        found: dict[int, Outcome] = {}
        for group, answer in zip(groups, answers, strict=True):
            for place, at in enumerate(group):
                found[at] = outcome(hits[at], answer[4 * place : 4 * place + 4])
        return [found[at] for at in range(len(hits))]


def in_turn(count: int) -> list[Sequence[int]]:
    return [range(at, min(at + CALL_HITS, count)) for at in range(0, count, CALL_HITS)]


def by_key(hits: Sequence[Hit]) -> list[Sequence[int]]:
    """The places of each key's hits, for keys of different slots cannot share a call."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at, hit in enumerate(hits):
        groups[hit.key].append(at)
    return list(groups.values())


def call(hits: Sequence[Hit]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of hit.lua."""
    keys = [hit.key for hit in hits]
    return keys, [value for hit in hits for value in (hit.limit, hit.window_ms, hit.cost)]


def outcome(hit: Hit, answer: Sequence[int]) -> Outcome:
    admitted, previous, current, elapsed_ms = answer
    return Outcome(bool(admitted), Window(previous, current, elapsed_ms), hit.limit)
