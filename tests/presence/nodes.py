"""Trackers as separate nodes would have them, over one Redis."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from redis import Redis

from service.background import end
from service.presence.memory import MemoryPresence
from service.presence.redis import RedisPresence
from service.presence.sessions import Card, Presence
from service.presence.tracker import Tracker, ignored
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry.metrics import Metrics


@dataclass
class Clocks:
    """What a node is told of the time: `wall` Unix seconds, `monotonic` seconds."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


@dataclass
class Given:
    """What a test may give a node; by itself it beats and watches Redis as in production."""

    shards: int = 1
    beat: bool = True
    watch: bool = True
    clocks: Clocks = field(default_factory=Clocks)
    card: Callable[[], Card] = dict
    drift: Callable[[float], None] = ignored


class Nodes:
    """`kill` stops a node's beat as a dead process would; `breakers` has each node's."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._beats: dict[Tracker, asyncio.Task[None]] = {}
        self.breakers: dict[Tracker, Breaker] = {}

    async def start(self, url: str = "", given: Given | None = None, **settings: Any) -> Tracker:
        """A node over the Redis at `url`, or with memory alone."""
        given = given or Given()
        memory = MemoryPresence(UTC, given.clocks.wall, given.clocks.monotonic)
        if not url:
            return Tracker(Failover[Presence](None, None, memory), memory, None, given.clocks.wall, card=given.card)
        if not given.watch:  # its outages are made by hand, so a slow machine shall not make others
            settings.setdefault("redis_request_timeout", 5)
        metrics = Metrics()
        state = RedisState(load(redis_url=url, **settings), metrics)
        self._stack.push_async_callback(state.close)
        degraded = metrics.degraded.labels("redis", "memory")
        up, write = metrics.dependency_up.labels("redis"), Writing(state).check
        breaker = Breaker(state.ping, up, degraded, write=write)
        fleet, failover = RedisPresence(state, UTC, given.shards, given.clocks.wall), Failover[Presence]
        presence = failover(breaker, fleet, memory)
        node = Tracker(presence, memory, fleet, given.clocks.wall, card=given.card, drift=given.drift)
        self.breakers[node] = breaker
        breaker.on_recovery(node.begin)
        await node.begin()
        await self._keep(node, breaker, given)
        return node

    async def _keep(self, node: Tracker, breaker: Breaker, given: Given) -> None:
        if given.watch:
            self._stack.push_async_callback(end, asyncio.create_task(breaker.run()))
        if given.beat:
            self._beats[node] = asyncio.create_task(node.run())
            self._stack.push_async_callback(end, self._beats[node])

    async def kill(self, node: Tracker) -> None:
        await end(self._beats[node])

    def cut(self, node: Tracker) -> None:
        """Redis is away for this node, until `mend`; for a node that does not watch."""
        self.breakers[node].failed("cut")
        self.breakers[node].failed("cut")

    async def mend(self, node: Tracker) -> None:
        while not self.breakers[node].closed:
            await self.breakers[node].probe()


def pass_in_redis(client: Redis, shard: int, seconds: int) -> None:
    """Move every end of a REST session as if that much of the server's time had passed."""
    ends = f"atp:{{presence:{shard}}}:x"
    names: list[bytes] = client.zrange(ends, 0, -1)  # type: ignore[assignment]
    for name in names:
        client.zincrby(ends, -1000 * seconds, name)


async def online(node: Tracker) -> int:
    users: int = (await node.get_stats())["online_users"]
    return users


async def sizes(node: Tracker) -> tuple[int, int, int]:
    """Online users, sessions, sockets."""
    stats = await node.get_stats()
    return stats["online_users"], stats["sessions"], stats["sockets"]
