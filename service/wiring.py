"""The one composition root: opens everything in order, hands it down, closes it in reverse."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from starlette.applications import Starlette

from service.agents import catalogue
from service.agents.openai_client import OpenAIClient
from service.agents.runner import Runner
from service.app import operations, private_app, public_app
from service.background import Background
from service.db.migrate import outstanding
from service.db.pool import Database
from service.errors import DatabaseUnavailable, SettingsError
from service.http.auth import Authenticator
from service.http.context import Observers
from service.keys.revocations import MemoryRevocations, RedisRevocations, Revocations
from service.keys.verifier import KeyVerifier
from service.routes.catalogue import CatalogueRoutes
from service.routes.chat import ChatRoutes
from service.routes.health import PrivateRoutes
from service.server.server import Server, ServerConfig, ServerHooks, stop_on_signals
from service.settings import Settings
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.telemetry import logging
from service.telemetry.loop import watch_loop
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
from service.telemetry.tracing import Tracing
from service.usage.ledger import Ledger

VERSION = version("atp")
SWITCH_INTERVAL_S = 0.0005  # Python's default is 0.005


@dataclass(frozen=True)
class Node:
    """One open node: the two applications and what the server tells them."""

    public: Starlette
    private: Starlette
    metrics: Metrics
    draining: asyncio.Event


async def serve(
    settings: Settings, index: int = 0, reuse_port: bool = False, started: Callable[[], None] = lambda: None
) -> None:
    """Run one node until SIGTERM or SIGINT. `index` tells the processes of one machine apart; `started` is called once
    it answers."""
    stop = stop_on_signals()
    await require_tables(settings)
    async with open_node(settings) as node:
        tune_interpreter()
        hooks = ServerHooks(
            count=lambda reason: node.metrics.connections_cut.labels(reason).inc(), not_ready=node.draining.set
        )
        config = ServerConfig(
            host=settings.host,
            port=settings.port,
            private_host=settings.private_host,
            private_port=settings.private_port + index,
            reuse_port=reuse_port,
        )
        server = Server(node.public, node.private, config, hooks)
        announcing = asyncio.create_task(announce(server, started))
        try:
            await server.run(stop)
        finally:
            announcing.cancel()


async def require_tables(settings: Settings) -> None:
    """Refuse a database that was not migrated: every request would fail. One that is away may come later.

    Raises:
        SettingsError: says how many migrations are missing, and the command.
    """
    try:
        missing = await outstanding(settings.database_url.get_secret_value())
    except DatabaseUnavailable:
        return
    if missing:
        raise SettingsError(f"the database lacks {missing} migration(s): run `atp migrate`")


def tune_interpreter() -> None:
    """Two habits of CPython that every request would feel.

    The threads that export traces and write logs keep the interpreter's lock for a whole interval when the loop wants
    it back. And a full garbage collection looks at every object there is, most of which live as long as the process:
    with those that start-up made set aside, it no longer stops the loop for 50 to 75 ms.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()


async def announce(server: Server, started: Callable[[], None]) -> None:
    await server.started.wait()
    started()


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Node]:
    """Open telemetry, PostgreSQL, Redis, the model client and the background work; close them in reverse.

    Raises:
        SettingsError: a fault in the agents or providers. A dependency that is away is no fault: ATP starts without it.
    """
    metrics = Metrics(VERSION, os.environ.get("ATP_REVISION", "unknown"))  # set by the image's build
    agents = catalogue.load(settings)
    async with AsyncExitStack() as stack:
        observers = open_telemetry(stack, settings, metrics)
        db = await stack.enter_async_context(Database(settings, metrics))
        redis = RedisState(settings, metrics) if settings.redis_url.get_secret_value() else None
        client = await stack.enter_async_context(OpenAIClient(settings))
        ledger = Ledger(db, metrics)
        stack.push_async_callback(ledger.close)
        background = await stack.enter_async_context(Background(metrics.unhandled.labels("background")))
        breaker = open_redis(stack, background, redis, metrics) if redis else None
        verifier = key_verifier(db, redis, breaker)
        background.start("ledger", ledger.run)
        background.start("revocations", verifier.run)
        background.start("loop-lag", lambda: watch_loop(metrics))

        table = operations(
            CatalogueRoutes(agents), ChatRoutes(Runner(agents, client, metrics, observers.tracer), ledger)
        )
        draining = asyncio.Event()
        private = PrivateRoutes(metrics, draining.is_set, lambda: dependencies(db, breaker))
        public = public_app(table, Authenticator(verifier, metrics), observers)
        yield Node(public, private_app(private), metrics, draining)


def dependencies(db: Database, breaker: Breaker | None) -> dict[str, bool]:
    return {"postgresql": db.up} | ({"redis": breaker.closed} if breaker else {})


def open_telemetry(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Observers:
    """Logs, traces and Sentry; opened first and closed last, so that every other part may use them."""
    dropped = metrics.telemetry_dropped
    writer = logging.configure(settings, dropped.labels("logs").inc)
    tracing = Tracing(settings, VERSION, dropped.labels("traces").inc)
    reporter = ErrorReporter(settings, f"atp@{VERSION}", dropped.labels("errors").inc)
    stack.callback(writer.close)
    stack.push_async_callback(asyncio.to_thread, tracing.close)
    stack.push_async_callback(asyncio.to_thread, reporter.close)
    return Observers(metrics, tracing.tracer, reporter, settings.access_log_sample)


def open_redis(stack: AsyncExitStack, background: Background, redis: RedisState, metrics: Metrics) -> Breaker:
    breaker = Breaker(redis.ping, metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory"))
    stack.push_async_callback(redis.close)
    background.start("redis-breaker", breaker.run)
    return breaker


def key_verifier(db: Database, redis: RedisState | None, breaker: Breaker | None) -> KeyVerifier:
    shared, memory = RedisRevocations(redis) if redis else None, MemoryRevocations()
    verifier = KeyVerifier(db, Failover[Revocations](breaker, shared, memory), shared)
    if breaker and shared:
        breaker.on_recovery(lambda: memory.republish(shared))
        breaker.on_recovery(verifier.forget_all)
    return verifier
