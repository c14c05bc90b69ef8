"""Flushes: a moment for a group, or for all; what began at or before it is a miss.

Nodes hear of one by the bus, and read all moments every LOOK_EVERY_S from a small hash in Redis, so that one who missed
the message knows it soon. Moments only ever rise, so hearing one again, late, or out of order changes nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from service.cache.clock import SharedClock
from service.errors import StateRejected, StateUnavailable
from service.state.failover import Failover
from service.state.redis import RedisState
from service.state.scripts import Script

log = structlog.get_logger()

KEY = "atp:cache:flushes"
ALL = "*"  # no agent has this id
LOOK_EVERY_S = 3.0
# Groups are agents; beyond this somebody invents them, and they are taken together as a flush of everything.
MOST_GROUPS = 1000
# A moment further ahead comes from a clock that is wrong; believed, it would switch the cache off until then.
AHEAD_MS = 1000
INSTANT_MS = 50
# How far nodes' ideas of Redis's clock may be apart: what it took to hear it, at most REDIS_REQUEST_TIMEOUT, and a bit.
SKEW_MS = 500


@dataclass(frozen=True)
class Moments:
    """`now_ms` by the clock of whoever answers, and the moment of each group that has one; Unix milliseconds."""

    now_ms: int
    of: Mapping[str, int]


@dataclass(frozen=True)
class Flushed:
    """What began at or before `before_ms` is a miss; so far only on this node where `degraded`."""

    before_ms: int
    degraded: bool


class FlushLog(Protocol):
    async def lift(self, moments: Mapping[str, int]) -> Moments:
        """Raise moments (0: to now) and return all that are known; those that are higher stay."""
        ...


class RedisFlushLog:
    """The fleet's moments, a hash."""

    def __init__(self, redis: RedisState) -> None:
        self._redis, self._script = redis, Script(Path(__file__).parent / "lua" / "flushes.lua")

    async def lift(self, moments: Mapping[str, int]) -> Moments:
        arguments = [text for pair in moments.items() for text in pair]
        now, *found = await self._redis.run("cache_flushes", lambda r: self._script.call(r, [KEY], arguments))
        return Moments(int(now), dict(pairs(found)))


class MemoryFlushLog:
    """Where there is no Redis, or while it is away: Flushes itself knows this node's moments.

    Without Redis to say what the time is, another node's entries may bear a moment that is later than this node's now.
    """

    def __init__(self, clock: SharedClock, skew_ms: int = 0) -> None:
        self._clock, self._skew_ms = clock, skew_ms

    async def lift(self, moments: Mapping[str, int]) -> Moments:
        now_ms = self._clock.now_ms()
        return Moments(now_ms, {group: moment or now_ms + self._skew_ms for group, moment in moments.items()})


class Flushes:
    """`run()` follows the fleet's moments and is owned by Background; `recovered` is a hook of the breaker."""

    def __init__(self, moments: Failover[FlushLog], clock: SharedClock, shared: FlushLog | None = None) -> None:
        self._log, self._clock, self._shared = moments, clock, shared
        self._moments: dict[str, int] = {}

    def covers(self, groups: Sequence[str], begun_ms: int) -> bool:
        """Whether something that began then was flushed since."""
        moments = self._moments
        if not moments:
            return False
        return begun_ms <= moments.get(ALL, 0) or any(begun_ms <= moments.get(group, 0) for group in groups)

    def heard(self, group: str | None, before_ms: int) -> None:
        """Believe it at once; None is everything. What begins before this node's clock has passed it is not kept."""
        name = ALL if group is None else group
        before_ms = min(before_ms, self._clock.now_ms() + AHEAD_MS)
        self._moments[name] = max(before_ms, self._moments.get(name, 0))
        if len(self._moments) > MOST_GROUPS:
            self._moments = {ALL: max(self._moments.values())}

    async def flush(self, group: str | None) -> Flushed:
        """Make everything of a group, or all, a miss: on this node at once, on the others when they hear of it.

        Returns once this node's clock has passed the moment, so that what begins afterwards is kept; it is the next
        millisecond or two. Putting the clock forward would date answers that then outlive another node's flush.
        """
        name = ALL if group is None else group
        self.heard(group, max(self._clock.now_ms(), 1 + max(self._moments.values(), default=0)))
        answered = await self._log.ask(lambda moments: moments.lift({name: 0}))
        self._learn(answered.result, by_redis=not answered.degraded)
        await self._passed(answered.result.of[name])
        return Flushed(answered.result.of[name], answered.degraded)

    async def _passed(self, moment_ms: int) -> None:
        left_ms = moment_ms + 1 - self._clock.now_ms()
        if 0 < left_ms <= INSTANT_MS:
            await asyncio.sleep(left_ms / 1000)

    async def recovered(self) -> None:
        """Redis is back: tell it what it may have missed or lost. Raises StateUnavailable."""
        await self._look(self._moments)

    async def run(self) -> None:
        """Read the moments for ever; without Redis there are none to read."""
        while self._shared:
            if not self._log.degraded:
                await self._try_look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _try_look(self) -> None:
        try:
            await self._look({})
        except StateUnavailable as error:
            if isinstance(error, StateRejected):
                self._log.rejected()
            log.warning("cache.flushes_unread", reason=str(error))

    async def _look(self, known: Mapping[str, int]) -> None:
        if self._shared:
            self._learn(await self._shared.lift(dict(known)), by_redis=True)

    def _learn(self, moments: Moments, by_redis: bool) -> None:
        if by_redis:
            self._clock.measured(moments.now_ms)
        for name, moment in moments.of.items():
            self.heard(None if name == ALL else name, moment)


def pairs(found: Sequence[Any]) -> list[tuple[str, int]]:
    """Group, moment; what is no moment is left out: it must not hide the others."""
    texts = [text.decode(errors="replace") for text in found]
    return [(name, int(moment)) for name, moment in zip(texts[::2], texts[1::2], strict=True) if moment.isdecimal()]
