"""The limits of a node: rates, failed authentication, streams at the same time."""

import asyncio

from service.http.ratelimit import Limiters
from service.limits.hits import Windows
from service.limits.limiter import RateLimiter
from service.limits.memory import MemoryWindows
from service.limits.policies import Policies, rates
from service.limits.redis import RedisWindows
from service.limits.slot_store import RedisSlots
from service.limits.slots import Slots
from service.presence.tracker import Tracker
from service.state.failover import Failover
from service.wiring.ground import Ground

# Failures of an address while Redis is away: one node cannot tell what others refuse, so it believes the first.
LONE_FAILURES = 1
# A node's card appears within 3 s and ends within 10 s of it.
COUNT_NODES_EVERY_S = 5.0


class FleetSize:
    """How many nodes there are, as the tracker knew last: by this many memory divides a limit while Redis is away."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.nodes = 1

    async def run(self) -> None:
        while True:
            found = await self._tracker.nodes()
            if not found.degraded:
                self.nodes = max(1, len(found.result))
            await asyncio.sleep(COUNT_NODES_EVERY_S)


class Limits:
    """`slots.held(identity)` is for streams; `limiters` for the gate."""

    def __init__(self, ground: Ground, tracker: Tracker) -> None:
        self._ground, self._size = ground, FleetSize(tracker)
        self._shared = RedisWindows(ground.redis) if ground.redis else None
        self._policies = Policies(rates(ground.settings))
        self.limiters = Limiters(requests=self._limiter(closed=False), failures=self._limiter(closed=True))
        slots = RedisSlots(ground.redis) if ground.redis else None
        self.slots = Slots(ground.settings.streams_per_key, slots, ground.breaker, lambda: self._size.nodes)
        if ground.breaker:
            ground.breaker.on_recovery(self.slots.renew)
        ground.work |= {"fleet-size": self._size.run, "stream-slots": self.slots.run}
        ground.stack.push_async_callback(self.slots.close)

    def _limiter(self, closed: bool) -> RateLimiter:
        """`closed`: while Redis is away as many as LONE_FAILURES, and none of whom there is no room for."""
        quota = LONE_FAILURES if closed and self._shared else None
        memory = MemoryWindows(lambda: self._size.nodes, closed=closed, quota=quota)
        windows = Failover[Windows](self._ground.breaker, self._shared, memory)
        limiter = RateLimiter(windows, self._policies, self._ground.metrics)
        self._ground.stack.push_async_callback(limiter.close)
        return limiter
