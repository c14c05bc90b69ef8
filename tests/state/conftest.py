import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from service.background import end
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry.metrics import Metrics


class Marks(Protocol):
    """The smallest capability there could be: a set of names."""

    async def add(self, name: str) -> None: ...

    async def has(self, name: str) -> bool: ...


class MemoryMarks:
    def __init__(self) -> None:
        self.names: set[str] = set()

    async def add(self, name: str) -> None:
        self.names.add(name)

    async def has(self, name: str) -> bool:
        return name in self.names


class RedisMarks:
    def __init__(self, redis: RedisState) -> None:
        self.redis = redis

    async def add(self, name: str) -> None:
        await self.redis.run("marks_add", lambda r: r.sadd("atp:test:{marks}", name))

    async def has(self, name: str) -> bool:
        return bool(await self.redis.run("marks_has", lambda r: r.sismember("atp:test:{marks}", name)))


@dataclass
class Watched:
    """A failover with its breaker running, and what it did."""

    breaker: Breaker
    marks: Failover[Marks]
    memory: MemoryMarks
    redis: RedisMarks
    metrics: Metrics
    recoveries: list[int] = field(default_factory=list)

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def watch() -> AsyncIterator[Callable[[str], Any]]:
    """`await watch(redis_url)` gives a Watched whose breaker probes until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(url: str) -> Watched:
            metrics = Metrics()
            redis = RedisState(load(redis_url=url), metrics)
            stack.push_async_callback(redis.close)
            up, degraded = metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory")
            breaker = Breaker(redis.ping, up, degraded, write=Writing(redis).check)
            memory, remote = MemoryMarks(), RedisMarks(redis)
            watched = Watched(breaker, Failover[Marks](breaker, remote, memory), memory, remote, metrics)

            async def republish() -> None:
                for name in list(memory.names):
                    await remote.add(name)
                watched.recoveries.append(len(memory.names))

            breaker.on_recovery(republish)
            stack.push_async_callback(end, asyncio.create_task(breaker.run()))
            return watched

        yield start
