"""What every capability of a node stands on: settings, telemetry, PostgreSQL, Redis and its breaker."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version

from service.background import Background, Ran
from service.db.pool import Database
from service.http.context import Observers
from service.settings import Settings
from service.state.breaker import Breaker
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry import logging
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
from service.telemetry.tracing import Process, Tracing

VERSION = version("atp")


@dataclass
class Ground:
    """Opened in this order, closed in reverse by the stack. `work` is what shall run in the background, by name."""

    settings: Settings
    metrics: Metrics
    stack: AsyncExitStack
    observers: Observers
    db: Database
    redis: RedisState | None = None
    waiting: RedisState | None = None  # for reads that block
    breaker: Breaker | None = None
    started: float = field(default_factory=time.monotonic)
    work: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """This node's name in the fleet; NODE_NAME is for those who run one process per name."""
        return name_of(self.settings)

    def watched(self, periodic: str) -> Ran:
        """To be called each time that this periodic work (one of labels.PERIODIC) has come to its end."""
        return self.metrics.periodic_success.labels(periodic).set_to_current_time

    def background(self, component: str = "background") -> Background:
        """For `work`; what fails there is counted under `component` (one of labels.UNHANDLED), and reported."""
        return Background(self.metrics.unhandled.labels(component), self.observers.reporter.background)


def name_of(settings: Settings) -> str:
    """Of this process, in the fleet."""
    return settings.node_name or f"{socket.gethostname()}:{os.getpid()}"


async def open_ground(stack: AsyncExitStack, settings: Settings, role: str) -> Ground:
    """`role`: node or worker."""
    metrics = Metrics(VERSION, os.environ.get("ATP_REVISION", "unknown"))  # set by the image's build
    observers = open_telemetry(stack, settings, metrics, role)
    db = await stack.enter_async_context(Database(settings, metrics))
    ground = Ground(settings, metrics, stack, observers, db)
    if settings.redis_url.get_secret_value():
        open_redis(ground)
    return ground


def open_redis(ground: Ground) -> None:
    settings, metrics = ground.settings, ground.metrics
    ground.redis = RedisState(settings, metrics)
    ground.stack.push_async_callback(ground.redis.close)
    # What it takes is the wait for news: among the times of operations it would be the slowest of all, and say nothing.
    ground.waiting = RedisState(settings, Metrics(), timeout_s=settings.redis_socket_timeout)
    ground.stack.push_async_callback(ground.waiting.close)
    degraded = metrics.degraded.labels("redis", "memory")
    up, write = metrics.dependency_up.labels("redis"), Writing(ground.redis).check
    ground.breaker = Breaker(ground.redis.ping, up, degraded, write=write)
    ground.work["redis-breaker"] = ground.breaker.run


def open_telemetry(stack: AsyncExitStack, settings: Settings, metrics: Metrics, role: str) -> Observers:
    """Logs, traces and Sentry; opened first and closed last, so that every other part may use them."""
    dropped = metrics.telemetry_dropped
    writer = logging.configure(settings, dropped.labels("logs").inc)
    tracing = Tracing(settings, Process(VERSION, role, name_of(settings)), dropped.labels("traces").inc)
    reporter = ErrorReporter(settings, f"atp@{VERSION}", dropped.labels("errors").inc)
    stack.callback(writer.close)
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    stack.push_async_callback(asyncio.to_thread, reporter.close)
    access_log = logging.AccessLog(settings, writer)
    return Observers(metrics, tracing.tracer, reporter, access_log, tracing.start_request_span)
