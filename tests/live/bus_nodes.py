"""Buses as separate nodes would have them, each with what its sockets were given."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import redis

from service.background import end
from service.live.bus import Bus
from service.live.bus_entries import Entry
from service.live.bus_redis import STREAM, RedisBusLog
from service.live.messages import Push, encode
from service.settings import load
from service.state.breaker import Breaker
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry.metrics import Metrics
from tests.waiting import eventually

FAR_MS = 4_000_000_000_000


def push(text: str, expires_at_ms: int = FAR_MS) -> Push:
    return Push(payload={"text": text}, expires_at_ms=expires_at_ms)


def text_of(entry: Entry) -> str:
    assert isinstance(entry.message, Push)
    return str(entry.message.payload["text"])


@dataclass
class BusNode:
    """`given` has every entry in order. `tick` is what a hub would say: sockets that joined so far."""

    metrics: Metrics
    breaker: Breaker | None = None
    given: list[Entry] = field(default_factory=list)
    gaps: int = 0
    tick: int = 1
    bus: Bus = field(init=False)
    running: asyncio.Task[None] | None = None
    before_delivery: Callable[[Entry], Awaitable[None]] | None = None

    async def deliver(self, entry: Entry) -> int:
        if self.before_delivery:
            await self.before_delivery(entry)
        self.given.append(entry)
        return self.tick

    async def on_gap(self) -> None:
        self.gaps += 1

    def texts(self) -> list[str]:
        """What sockets that were there all the time have seen."""
        return [text_of(entry) for entry in self.given if entry.local_tick is None]

    async def has(self, count: int, within_s: float = 8.0) -> None:
        await eventually(lambda: len(self.texts()) >= count, within_s)

    def counted(self, direction: str) -> float | None:
        return self.metrics.registry.get_sample_value("atp_bus_messages_total", {"direction": direction})

    def missed(self, last_seq: str) -> list[str] | None:
        entries = self.bus.missed(last_seq)
        return None if entries is None else [text_of(entry) for entry in entries]


class BusNodes:
    """Starts nodes, and ends them with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def start(self, url: str = "", **options: Any) -> BusNode:
        """`make`, and wait until it follows the stream."""
        node = self.make(url, **options)
        if url:
            await eventually(lambda: bool(node.bus.position))
        return node

    def make(
        self,
        url: str = "",
        probing: bool = True,
        clock: Callable[[], float] = time.time,
        pause_s: float = 0.0,
        pushes: bool = True,
        **settings: Any,
    ) -> BusNode:
        """A running node; not `probing`, its breaker learns of outages from calls alone."""
        node = BusNode(Metrics())
        shared = self._open(node, url, probing, settings) if url else None
        options: dict[str, Any] = {"clock": clock, "pause_s": pause_s, "pushes": pushes}
        node.bus = Bus(node.deliver, shared, node.breaker, node.metrics, on_gap=node.on_gap, **options)
        if node.breaker:
            node.breaker.on_recovery(node.bus.recovered)
        node.running = asyncio.create_task(node.bus.run())
        self._stack.push_async_callback(end, node.running, asyncio.create_task(node.bus.speak()))
        return node

    def _open(self, node: BusNode, url: str, probing: bool, settings: dict[str, Any]) -> RedisBusLog:
        loaded = load(redis_url=url, **{"redis_socket_timeout": 1.5} | settings)
        state = RedisState(loaded, node.metrics)
        reading = RedisState(loaded, node.metrics, loaded.redis_socket_timeout)
        self._stack.push_async_callback(state.close)
        self._stack.push_async_callback(reading.close)
        degraded = node.metrics.degraded.labels("redis", "memory")
        up, write = node.metrics.dependency_up.labels("redis"), Writing(state).check
        node.breaker = Breaker(state.ping, up, degraded, write=write)
        if probing:
            self._stack.push_async_callback(end, asyncio.create_task(node.breaker.run()))
        return RedisBusLog(state, reading)


def write(url: str, seq: str, text: str) -> None:
    """Put a message in the stream at a place of the test's choice."""
    with redis.Redis.from_url(url) as client:
        client.xadd(STREAM, {"m": encode(push(text))}, id=seq)
