"""Presence without HTTP: the tracker's own calls against a Redis, as sessions grow. A process of its own (uvloop).

Run: python -m bench.presence_load '{"url": "redis://…", "least_url": "redis://…", "sizes": [1000, 5000], "seconds": 4}'
Both Redis must be empty and nobody else's; the second is filled to the least size and stays so. It prints one JSON
document. At each size:

1. Fill up to it: sessions of other nodes, one for each user, joined in batches.
2. `get_stats`, one call after the other, by turns here and where the least size is, so that a noisy moment meets
   both: quantiles. What Redis holds more than when it was empty, by session.
3. Joins and leaves by 64 callers, through the tracker; then the same by the bare script, one call a session, through
   the same kind of client.
"""

import asyncio
import json
import random
import string
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import structlog
import uvloop

from bench.load import summary
from bench.redis_info import used_bytes
from service.presence.memory import MemoryPresence
from service.presence.redis import RedisPresence
from service.presence.sessions import Change, Presence, Session
from service.presence.shards import arguments
from service.presence.tracker import Tracker
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState, connect
from service.telemetry.metrics import Metrics

CALLERS = 64
OWNERS = 10
FILL_BATCH = 2_000
TIMEOUT_S = 5.0  # nothing here may fail over to memory
STATS_CALLS = 1_000
WARM_S = 0.2
BASE62 = string.ascii_letters + string.digits

Figures = dict[str, float]
Pair = Callable[[Session], Awaitable[None]]


@dataclass(frozen=True)
class Plan:
    url: str
    least_url: str
    sizes: list[int]
    seconds: float


@dataclass(frozen=True)
class Node:
    """A node's tracker, the fleet's presence under it, and a client of the same kind to go past both."""

    tracker: Tracker
    fleet: RedisPresence
    redis: Any


async def measure(plan: Plan) -> dict[str, Figures]:
    """Figures by size."""
    async with node_on(plan.url) as node, node_on(plan.least_url) as least:
        await empty(least)
        await fill(least.fleet, plan.sizes[0])
        empty_bytes, filled, results = await empty(node), 0, {}
        for size in plan.sizes:
            await fill(node.fleet, size - filled)
            filled = size
            results[str(size)] = {
                "bytes_each": (await used_bytes(node.redis) - empty_bytes) / size,
                **await stats({"": (node.tracker, size), "least_": (least.tracker, plan.sizes[0])}),
                "pairs_per_s": await pairs_per_s(through(node.tracker), plan.seconds),
                "bare_pairs_per_s": await pairs_per_s(await past(node.redis), plan.seconds),
            }
    return results


async def empty(node: Node) -> int:
    """What its Redis uses with nothing in it, once connections and scripts are there; in bytes."""
    await pairs_per_s(through(node.tracker), WARM_S)
    await node.redis.flushall()
    await node.tracker.begin()
    return await used_bytes(node.redis)


@asynccontextmanager
async def node_on(url: str) -> AsyncIterator[Node]:
    """As `service/wiring/` makes it, but that nothing runs besides: no beat, no probe."""
    settings, metrics = load(redis_url=url, redis_max_connections=CALLERS, redis_request_timeout=TIMEOUT_S), Metrics()
    state, (client, *_) = RedisState(settings, metrics), connect(settings, TIMEOUT_S)
    memory, fleet = MemoryPresence(UTC), RedisPresence(state, UTC)
    breaker = Breaker(state.ping, metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory"))
    tracker = Tracker(Failover[Presence](breaker, fleet, memory), memory, fleet)
    try:
        yield Node(tracker, fleet, client)
    finally:
        await tracker.close()
        await state.close()
        await client.aclose()


async def fill(fleet: RedisPresence, count: int) -> None:
    """Join as other nodes would. They hold no lease, but nobody beats here who would reap them."""
    for start in range(0, count, FILL_BATCH):
        owner = f"{start // FILL_BATCH % OWNERS:016x}"
        sessions = [new_session() for _ in range(min(FILL_BATCH, count - start))]
        await fleet.change(owner, [Change(session, 0) for session in sessions])


def new_session() -> Session:
    user = "usr_" + "".join(random.choices(BASE62, k=12))
    ids = f"{random.getrandbits(64):016x}", user, f"{random.getrandbits(32):08x}"
    return Session(*ids, random.choice(("mobile", "tablet", "desktop")), int(time.time()))


async def stats(trackers: dict[str, tuple[Tracker, int]]) -> Figures:
    """By turns, each with the number of sessions that it must tell; raises RuntimeError when it does not."""
    latencies_us: dict[str, list[int]] = {name: [] for name in trackers}
    for _ in range(STATS_CALLS):
        for name, (tracker, sessions) in trackers.items():
            began = time.perf_counter()
            found = await tracker.get_stats()
            latencies_us[name].append(round(1e6 * (time.perf_counter() - began)))
            if found["sessions"] != sessions or found["degraded"]:
                raise RuntimeError(f"{found} where {sessions} sessions are")
    summaries = {name: summary(sorted(taken)) for name, taken in latencies_us.items()}
    return {f"{name}stats_{key}": value for name, found in summaries.items() for key, value in found.items()}


async def pairs_per_s(pair: Pair, seconds: float) -> float:
    """A join and a leave after the other, in a closed loop of CALLERS."""
    until, pairs = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal pairs
        while time.monotonic() < until:
            await pair(new_session())
            pairs += 1

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return pairs / (time.monotonic() - began)


def through(tracker: Tracker) -> Pair:
    async def pair(session: Session) -> None:
        await tracker.add_user(session.user_id, session.session_id, session.client_id, session.device)
        await tracker.remove_user(session.session_id)

    return pair


class Recorder:
    """Stands where RedisState and its client do, and keeps the call that would have been made."""

    call: tuple[Any, ...] = ()

    async def run(self, operation: str, call: Callable[[Any], Awaitable[Any]]) -> Any:
        return await call(self)

    async def evalsha(self, *call: Any) -> list[int]:
        self.call = call
        return [0]


async def past(redis: Any) -> Pair:
    """The script alone, a call a session, made as RedisPresence would make it; the call ends with the change."""
    recorder, change = Recorder(), Change(new_session(), 0)
    await RedisPresence(recorder, UTC).change("f" * 16, [change])  # type: ignore[arg-type]
    head = recorder.call[: -len(arguments(change))]

    async def pair(session: Session) -> None:
        for lives_ms in (0, None):
            await redis.evalsha(*head, *arguments(Change(session, lives_ms)))

    return pair


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    print(json.dumps(uvloop.run(measure(Plan(**json.loads(sys.argv[1]))))))
