"""The admin routes on a real server and a real PostgreSQL; what other capabilities would tell or hear stands in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import psycopg
from opentelemetry.trace import NoOpTracer
from starlette.applications import Starlette
from starlette.middleware import Middleware

from service.admin.audit import Audit
from service.db.pool import Database, one_connection
from service.devices import Device
from service.http.address import Callers
from service.http.auth import Authenticator
from service.http.context import Context, Observers
from service.http.operation import Operation, route
from service.http.problems import EXCEPTION_HANDLERS
from service.http.ratelimit import Gate, Limiters
from service.http.table import Table
from service.keys import issuing
from service.keys.blocks import Blocks
from service.keys.revocations import MemoryRevocations, Revocations
from service.keys.verifier import KeyVerifier
from service.limits.hits import Windows
from service.limits.limiter import RateLimiter
from service.limits.memory import MemoryWindows
from service.limits.policies import POLICIES, Policies
from service.live import messages
from service.live.messages import AnyMessage
from service.live.tickets import MemoryTickets, Tickets, TicketStore
from service.routes.admin import AdminRoutes
from service.routes.admin_actions import AdminActions
from service.routes.admin_blocks import BlockRequest, BlockRoutes
from service.routes.admin_requests import BroadcastRequest, DisconnectRequest
from service.routes.admin_stats import AdminStats
from service.server.server import Server, ServerConfig
from service.settings import load
from service.state.failover import Answered, Failover
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
from service.telemetry.system import SystemStats

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
CARDS = [{"node": "node-1", "sockets": 7}, {"node": "node-2", "sockets": 5}]
BROADCAST = "/api/admin/broadcast"
Json = dict[str, Any]


@dataclass(frozen=True)
class Page:
    users: list[tuple[str, int, int]]
    next_cursor: str


@dataclass(frozen=True)
class Published:
    seq: str | None
    degraded: bool


class Fleet:
    """Twelve sockets: ana has three mobile ones, of which one is on this node."""

    degraded = False

    async def get_stats(self) -> Json:
        return {"online_users": 9, "sockets": 12, "degraded": self.degraded}

    async def sockets(self, users: list[str] | None = None, devices: list[Device] | None = None) -> Answered[int]:
        if users is not None:
            return Answered(sum(3 for user in users if user == "ana"), self.degraded)
        by_device = {"mobile": 3, "tablet": 2, "desktop": 7, "unknown": 0}
        return Answered(sum(by_device[device] for device in devices) if devices else 12, self.degraded)

    async def online_page(self, cursor: str, limit: int) -> Answered[Page]:
        users = [("ana", 3, 0), ("ben", 0, 1)]
        page = Page(users[:limit], f"after-{limit}") if not cursor else Page([], "")
        return Answered(page, self.degraded)

    async def nodes(self) -> Answered[list[Json]]:
        return Answered(CARDS, self.degraded)


class Hub:
    def stats(self) -> Json:
        return {"sockets": 7, "users": 4}

    def count(self, user_id: str, session_id: str | None) -> int:
        return 1 if user_id == "ana" and session_id in (None, "here") else 0


class Bus:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[AnyMessage] = []
        self.degraded = False

    async def publish(self, message: AnyMessage) -> Published:
        messages.encode(message)
        self.said.append(message)
        return Published(None if self.degraded else "1-0", self.degraded)


class Desk:
    """The admin routes on a real server over a real database; `http` has an admin's key."""

    def __init__(self, dsn: str, db: Database) -> None:
        self.dsn, self.fleet, self.hub, self.bus, self.blocks = dsn, Fleet(), Hub(), Bus(), Blocks(db)
        self.redis: Callable[[], Json] = lambda: {"used_memory_bytes": 1}
        audit, pool = Audit(db), lambda: {"idle": 1, "used": 0, "max": 3, "pending": 0}
        self.routes = AdminRoutes(
            AdminActions("node-1", audit, self.fleet, self.hub, self.bus, lambda: NOW),
            AdminStats("node-1", self.fleet, self.hub, SystemStats(0.0), pool, self.ask_redis),
        )
        self.block_routes = BlockRoutes(audit, self.bus, self.blocks)
        self.http: httpx2.AsyncClient

    async def ask_redis(self) -> Json:
        return self.redis()

    async def key(self, user: str, *scopes: str) -> str:
        async with one_connection(self.dsn) as connection:
            return (await issuing.create_key(connection, user, "test", scopes)).text

    def rows(self, columns: str, table: str = "admin_audit") -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(f"SELECT {columns} FROM {table}".encode()).fetchall()  # noqa: S608


def table(admin: AdminRoutes, blocks: BlockRoutes) -> list[Operation]:
    return [
        Operation("GET", "/api/admin/stats/online-users", admin.online_users, "admin"),
        Operation("GET", "/api/admin/stats/system", admin.system, "admin"),
        Operation("GET", "/api/admin/stats/websocket", admin.websocket, "admin"),
        Operation("GET", "/api/admin/stats/dashboard", admin.dashboard, "admin"),
        Operation("GET", "/api/admin/users/online", admin.online, "admin"),
        Operation("POST", BROADCAST, admin.broadcast, "admin", BroadcastRequest),
        Operation("POST", "/api/admin/users/{user_id:path}/disconnect", admin.disconnect, "admin", DisconnectRequest),
        Operation("DELETE", "/api/admin/users/{user_id:path}/block", admin.lift_block, "admin"),
        Operation("POST", "/api/admin/blocks", blocks.create, "admin", BlockRequest),
        Operation("GET", "/api/admin/blocks", blocks.list_blocks, "admin"),
        Operation("DELETE", "/api/admin/blocks/{kind}/{subject:path}", blocks.lift, "admin"),
        Operation("POST", "/api/admin/drain", admin.drain, "admin"),
        Operation("DELETE", "/api/admin/drain", admin.end_drain, "admin"),
    ]


def app(desk: Desk, db: Database, metrics: Metrics) -> Starlette:
    verifier = KeyVerifier(db, Failover[Revocations](None, None, MemoryRevocations()))
    tickets = Tickets(Failover[TicketStore](None, None, MemoryTickets()))
    observers = Observers(metrics, NoOpTracer(), ErrorReporter(load(), "test", lambda: None))
    authenticator = Authenticator(verifier, tickets, desk.blocks, metrics)
    windows = Failover[Windows](None, None, MemoryWindows())
    limiter = RateLimiter(windows, Policies(dict.fromkeys(POLICIES, "1000000/second")), metrics)
    gate = Gate(authenticator, Limiters(limiter, limiter), desk.blocks, Callers([]), metrics)
    made = Starlette(middleware=[Middleware(Context, observers)], exception_handlers=EXCEPTION_HANDLERS)
    made.router = Table([route(operation, gate) for operation in table(desk.routes, desk.block_routes)])
    return made


@asynccontextmanager
async def open_desk(dsn: str) -> AsyncIterator[Desk]:
    settings = load(database_url=dsn, db_pool_size=1, db_max_overflow=4, db_timeout=0.5)
    metrics, stop = Metrics(), asyncio.Event()
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database(settings, metrics))
        desk = Desk(dsn, db)
        server = Server(app(desk, db, metrics), Starlette(), ServerConfig(port=0, private_port=0, exit_s=None))
        serving = asyncio.create_task(server.run(stop))
        stack.push_async_callback(lambda: serving)
        stack.callback(stop.set)
        await server.started.wait()
        async with one_connection(dsn) as connection:
            for name in ("root", "ana"):
                await issuing.create_user(connection, name, f"{name}@example.org", "admin")
            await connection.execute("UPDATE users SET id = username")
        url, headers = f"http://127.0.0.1:{server.port}", {"x-api-key": await desk.key("root", "admin")}
        desk.http = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, headers=headers, timeout=10))
        yield desk
