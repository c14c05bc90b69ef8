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
from service.cache.store import Cache
from service.http.address import Callers, networks
from service.http.auth import Authenticator
from service.http.ratelimit import Gate
from service.http.streams import Streams
from service.routes.admin import AdminRoutes
from service.routes.admin_actions import AdminActions
from service.routes.admin_blocks import BlockRoutes
from service.routes.admin_cache import AdminCacheRoutes
from service.routes.admin_stats import AdminStats
from service.routes.admin_tasks import AdminTaskRoutes
from service.routes.admin_users import UserRoutes
from service.routes.catalogue import CatalogueRoutes
from service.routes.docs import DocsRoutes
from service.routes.health import PrivateRoutes
from service.routes.key_actions import KeyActions
from service.routes.keys import KeyRoutes
from service.routes.presence import PresenceRoutes
from service.routes.session import TicketRoutes
from service.routes.sessions import ConversationRoutes
from service.routes.task_events import TaskEvents
from service.routes.tasks import TaskRoutes
from service.routes.usage import UsageRoutes
from service.routes.user_actions import UserActions
from service.settings import Settings
from service.state.redis import RedisState
from service.tasks.oversight import Oversight
from service.telemetry.loop import watch_loop
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
from service.wiring.cache import Caching
from service.wiring.chats import Chats
from service.wiring.docs import api_document
from service.wiring.fleet import open_fleet
from service.wiring.ground import Ground, open_ground
from service.wiring.limits import Limits
from service.wiring.live import Live
from service.wiring.tasks import open_tasks, told_by
from service.wiring.usage import open_ledger, reports


@dataclass(frozen=True)
class Node:
    """One open node: the two applications and what the server tells them."""

    public: Starlette
    private: Starlette
    metrics: Metrics
    draining: asyncio.Event
    let_go: Callable[[], Awaitable[None]]  # closes every socket, at a bounded rate
    cache: Cache  # the answers that this node's routes keep
    revoked: Callable[[bytes], Awaitable[None]]  # tells every node that the key of this hash has changed
    streams: Streams  # requests under way, by their keys


async def require_sound(settings: Settings) -> None:
    """Raises SettingsError for what `open_node` would; connects to nothing."""
    catalogue.load(settings)
    networks(settings.trusted_proxies)
    if settings.redis_url.get_secret_value():
        await RedisState(settings, Metrics()).close()
    ErrorReporter(settings, "", dropped=lambda: None).close()


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
        ground = await open_ground(stack, settings, "node")
        client = await stack.enter_async_context(OpenAIClient(settings))
        ledger = await open_ledger(ground)
        ground.work["loop-lag"] = lambda: watch_loop(ground.metrics)
        caching = Caching(ground)
        live = Live(ground, caching.flushes.heard)
        live.start()
        open_fleet(ground, live.tracker)
        limits = Limits(ground, live.tracker)
        runner = Runner(agents, client, ground.metrics, ground.observers.tracer)
        chats = Chats(ground, agents, runner, caching, ledger, limits.slots, live.streams)
        serve_tasks = await tasks_beside(ground, chats, live) if settings.node_tasks else None
        node = make_node(ground, live, limits, caching, chats)
        background = await stack.enter_async_context(ground.background())
        for name, work in ground.work.items():
            background.start(name, work)
        if serve_tasks:
            serve_tasks()
        yield node


async def tasks_beside(ground: Ground, chats: Chats, live: Live) -> Callable[[], None]:
    """A worker in this node; what is returned starts it. The engine is imported only here: it takes 16 MB."""
    from service.wiring.worker import node_worker, serve_beside

    worker = await node_worker(ground, chats.answering, live)
    return lambda: serve_beside(ground, worker)


def make_node(ground: Ground, live: Live, limits: Limits, caching: Caching, chats: Chats) -> Node:
    authenticator = Authenticator(live.verifier, live.tickets, live.blocks, ground.metrics)
    callers = Callers(networks(ground.settings.trusted_proxies))
    gate = Gate(authenticator, limits.limiters, live.blocks, callers, ground.metrics)
    audit, tasks = Audit(ground.db), open_tasks(ground, live.bus)
    handlers = Handlers(
        catalogue=CatalogueRoutes(chats.catalogue, ground.settings.catalogue_max_age),
        chat=chats.chat,
        completions=chats.completions,
        presence=PresenceRoutes(live.tracker),
        tickets=TicketRoutes(live.tickets),
        sessions=ConversationRoutes(chats.sessions),
        usage=UsageRoutes(reports(ground)),
        tasks=TaskRoutes(tasks, chats.catalogue, ground.settings.task_callback_urls),
        task_events=TaskEvents(tasks, live.watches, live.bus, limits.slots, live.streams),
        admin=admin_routes(ground, live),
        admin_cache=AdminCacheRoutes(audit, caching.flushes, live.bus, chats.catalogue),
        admin_tasks=AdminTaskRoutes(audit, Oversight(ground.db, told_by(live.bus))),
        blocks=BlockRoutes(audit, live.bus, live.blocks),
        keys=KeyRoutes(KeyActions(ground.db.connection, audit, live.verifier.revoked, ground.settings.keys_per_user)),
        users=UserRoutes(UserActions(ground.db.connection, audit, live.verifier.revoked)),
    )
    draining = asyncio.Event()
    private = PrivateRoutes(
        ground.metrics, lambda: draining.is_set() or live.hub.draining, lambda: dependencies(ground)
    )
    session = live.session(gate, chats.answering, limits.slots)
    docs = DocsRoutes(api_document())
    public = public_app(operations(handlers), session, docs, gate, ground.observers)
    return Node(
        public=public,
        private=private_app(private),
        metrics=ground.metrics,
        draining=draining,
        let_go=live.let_go,
        cache=caching.cache,
        revoked=live.verifier.revoked,
        streams=live.streams,
    )


def dependencies(ground: Ground) -> dict[str, bool]:
    return {"postgresql": ground.db.up} | ({"redis": ground.breaker.closed} if ground.breaker else {})


def admin_routes(ground: Ground, live: Live) -> AdminRoutes:
    name, redis = ground.name, ground.redis

    async def redis_stats() -> dict[str, Any]:
        return await redis.stats() if redis else {}

    actions = AdminActions(name, Audit(ground.db), live.tracker, live.hub, live.bus)
    stats = AdminStats(name, live.tracker, live.hub, live.system, ground.db.stats, redis_stats)
    return AdminRoutes(actions, stats)
