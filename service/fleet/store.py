"""Where the fleet's snapshot lies: in Redis, or in memory where none is configured.

There is no fallback here: while Redis is away nobody knows the fleet, and what is not known is not exported.
"""

import json
import time
from collections.abc import Callable
from typing import Protocol

from service.state.redis import RedisState
from service.telemetry.fleet_metrics import Snapshot

FRESH_S = 30.0
EVERY_S = 10.0
LEAD, SNAPSHOT, PEAKS = "fleet:lead", "fleet:snapshot", "fleet:peaks"


class Fleet(Protocol):
    """Every method raises StateUnavailable."""

    async def lead(self) -> bool:
        """Whether it is this node's turn to take a snapshot; nobody else's for EVERY_S."""
        ...

    async def put(self, snapshot: Snapshot) -> None: ...

    async def get(self) -> tuple[Snapshot, float] | None:
        """The last one, and for how many seconds it is fresh; no clocks of two machines are compared."""
        ...

    async def sockets_peak(self, day: str, sockets: int) -> tuple[int, int]:
        """The most on that day and ever, `sockets` included. For the one whose turn it is."""
        ...


class RedisFleet:
    def __init__(self, redis: RedisState) -> None:
        self._redis = redis

    async def lead(self) -> bool:
        taken = await self._redis.run("fleet_lead", lambda r: r.set(LEAD, 1, nx=True, px=int(EVERY_S * 1000)))
        return bool(taken)

    async def put(self, snapshot: Snapshot) -> None:
        text = json.dumps(snapshot)
        await self._redis.run("fleet_put", lambda r: r.set(SNAPSHOT, text, px=int(FRESH_S * 1000)))

    async def get(self) -> tuple[Snapshot, float] | None:
        text, left_ms = await self._redis.run(
            "fleet_get", lambda r: r.pipeline(transaction=False).get(SNAPSHOT).pttl(SNAPSHOT).execute()
        )
        return (read(text), left_ms / 1000) if text and left_ms > 0 else None

    async def sockets_peak(self, day: str, sockets: int) -> tuple[int, int]:
        known = await self._redis.run("fleet_peaks", lambda r: r.hgetall(PEAKS))
        today = max(sockets, int(known.get(b"today", 0)) if known.get(b"day") == day.encode() else 0)
        ever = max(sockets, int(known.get(b"ever", 0)))
        values = {"day": day, "today": today, "ever": ever}
        await self._redis.run("fleet_peaks", lambda r: r.hset(PEAKS, mapping=values))
        return today, ever


def read(text: bytes) -> Snapshot:
    return {name: [(labels, value) for labels, value in told] for name, told in json.loads(text).items()}


class MemoryFleet:
    """Of the only node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0
        self._last: tuple[Snapshot, float] | None = None
        self._day, self._today, self._ever = "", 0, 0

    async def lead(self) -> bool:
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + EVERY_S
        return True

    async def put(self, snapshot: Snapshot) -> None:
        self._last = snapshot, self._clock() + FRESH_S

    async def get(self) -> tuple[Snapshot, float] | None:
        if self._last is None:
            return None
        snapshot, until = self._last
        return (snapshot, until - self._clock()) if until > self._clock() else None

    async def sockets_peak(self, day: str, sockets: int) -> tuple[int, int]:
        if day != self._day:
            self._day, self._today = day, 0
        self._today, self._ever = max(self._today, sockets), max(self._ever, sockets)
        return self._today, self._ever
