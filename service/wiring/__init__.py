"""The one composition root: opens everything in order, hands it down, closes it in reverse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette

from service.admin.audit import Audit
from service.agents import catalogue
from service.agents.openai_client import OpenAIClient
from service.agents.runner import Runner
from service.app import Handlers, operations, private_app, public_app
from service.background import Background
from service.http.address import networks
from service.http.auth import Authenticator
from service.routes.admin import AdminRoutes
from service.routes.admin_actions import AdminActions
from service.routes.admin_stats import AdminStats
from service.routes.catalogue import CatalogueRoutes
from service.routes.chat import ChatRoutes
from service.routes.health import PrivateRoutes
from service.routes.presence import PresenceRoutes
from service.routes.session import TicketRoutes
from service.settings import Settings
from service.telemetry.loop import watch_loop
from service.telemetry.metrics import Metrics
from service.usage.ledger import Ledger
from service.wiring.ground import Ground, open_ground
from service.wiring.live import Live


@dataclass(frozen=True)
class Node:
    """One open node: the two applications and what the server tells them."""

    public: Starlette
    private: Starlette
    metrics: Metrics
    draining: asyncio.Event
    let_go: Callable[[], Awaitable[None]]  # closes every socket, at a bounded rate
    revoked: Callable[[bytes], Awaitable[None]]  # tells every node that the key of this hash has changed


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Node]:
    """Open telemetry, PostgreSQL, Redis, the model client and the background work; close them in reverse.

    Raises:
        SettingsError: a fault in the agents, providers or proxies. A dependency that is away is no fault: ATP starts
            without it.
    """
    agents = catalogue.load(settings)
    networks(settings.trusted_proxies)
    async with AsyncExitStack() as stack:
        ground = await open_ground(stack, settings)
        client = await stack.enter_async_context(OpenAIClient(settings))
        ledger = Ledger(ground.db, ground.metrics)
        stack.push_async_callback(ledger.close)
        ground.work |= {"ledger": ledger.run, "loop-lag": lambda: watch_loop(ground.metrics)}
        live = Live(ground)
        live.start()
        node = make_node(ground, live, Runner(agents, client, ground.metrics, ground.observers.tracer), ledger, agents)
        background = await stack.enter_async_context(Background(ground.metrics.unhandled.labels("background")))
        for name, work in ground.work.items():
            background.start(name, work)
        yield node


def make_node(ground: Ground, live: Live, runner: Runner, ledger: Ledger, agents: catalogue.Catalogue) -> Node:
    authenticator = Authenticator(live.verifier, live.tickets, live.blocks, ground.metrics)
    handlers = Handlers(
        catalogue=CatalogueRoutes(agents),
        chat=ChatRoutes(runner, ledger),
        presence=PresenceRoutes(live.tracker),
        tickets=TicketRoutes(live.tickets),
        admin=admin_routes(ground, live),
    )
    draining = asyncio.Event()
    private = PrivateRoutes(
        ground.metrics, lambda: draining.is_set() or live.hub.draining, lambda: dependencies(ground)
    )
    session = live.session(authenticator, runner, ledger)
    public = public_app(operations(handlers), session, authenticator, ground.observers)
    return Node(public, private_app(private), ground.metrics, draining, live.let_go, live.verifier.revoked)


def dependencies(ground: Ground) -> dict[str, bool]:
    return {"postgresql": ground.db.up} | ({"redis": ground.breaker.closed} if ground.breaker else {})


def admin_routes(ground: Ground, live: Live) -> AdminRoutes:
    name, redis = ground.name, ground.redis

    async def redis_stats() -> dict[str, Any]:
        return await redis.stats() if redis else {}

    actions = AdminActions(name, Audit(ground.db), live.tracker, live.hub, live.bus)
    stats = AdminStats(name, live.tracker, live.hub, live.system, ground.db.stats, redis_stats)
    return AdminRoutes(actions, stats)
