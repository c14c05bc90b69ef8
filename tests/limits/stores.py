"""Limiters as separate nodes would have them, over whatever Redis there is."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from service.background import end
from service.limits.hits import Windows
from service.limits.limiter import RateLimiter
from service.limits.memory import MemoryWindows
from service.limits.policies import POLICIES, Policies
from service.limits.redis import RedisWindows
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry.metrics import Metrics


@dataclass
class LimiterNode:
    """One node's limiter, its breaker running; `nodes` is how many it last knew of."""

    metrics: Metrics
    limiter: RateLimiter
    breaker: Breaker | None
    redis: RedisState | None

    def counted(self, policy: str, decision: str) -> float | None:
        labels = {"policy": policy, "decision": decision}
        return self.metrics.registry.get_sample_value("atp_ratelimit_decisions_total", labels)

    def calls(self) -> float:
        """How many calls Redis was asked."""
        labels = {"system": "redis", "operation": "limit_hit"}
        return self.metrics.registry.get_sample_value("db_client_operation_duration_seconds_count", labels) or 0


class LimiterNodes:
    """Starts nodes, and ends them with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def start(
        self,
        url: str = "",
        rate: str = "30/minute",
        nodes: Callable[[], int] = lambda: 1,
        quota: int | None = None,
        **rates: str,
    ) -> LimiterNode:
        """Without a URL there is memory only; `quota` is memory's."""
        metrics = Metrics()
        redis = self._redis(url, metrics) if url else None
        breaker = self._breaker(redis, metrics) if redis else None
        shared = RedisWindows(redis) if redis else None
        windows = Failover[Windows](breaker, shared, MemoryWindows(nodes, quota=quota))
        policies: Mapping[str, str] = dict.fromkeys(POLICIES, rate) | rates
        limiter = RateLimiter(windows, Policies(policies), metrics)
        self._stack.push_async_callback(limiter.close)
        return LimiterNode(metrics, limiter, breaker, redis)

    def _redis(self, url: str, metrics: Metrics) -> RedisState:
        redis = RedisState(load(redis_url=url), metrics)
        self._stack.push_async_callback(redis.close)
        return redis

    def _breaker(self, redis: RedisState, metrics: Metrics) -> Breaker:
        up, degraded = metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory")
        breaker = Breaker(redis.ping, up, degraded, write=Writing(redis).check)
        self._stack.push_async_callback(end, asyncio.create_task(breaker.run()))
        return breaker
