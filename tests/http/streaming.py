"""A tiny app that streams for the caller's key, on a real server: what a route does with `Streams`."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from opentelemetry.trace import NoOpTracer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response

from service.db.pool import Database
from service.http.address import Callers
from service.http.auth import Authenticator
from service.http.context import Context, Observers
from service.http.disconnect import until_gone
from service.http.operation import Call, Operation, route
from service.http.problems import EXCEPTION_HANDLERS
from service.http.ratelimit import Gate, Limiters
from service.http.sse import EventStream, event
from service.http.streams import Streams
from service.http.table import Table
from service.keys.blocks import Blocks
from service.keys.revocations import MemoryRevocations, Revocations
from service.keys.verifier import KeyVerifier
from service.limits.hits import Windows
from service.limits.limiter import RateLimiter
from service.limits.memory import MemoryWindows
from service.limits.policies import POLICIES, Policies
from service.live.tickets import MemoryTickets, Tickets, TicketStore
from service.server.server import Server, ServerConfig
from service.settings import load
from service.state.failover import Failover
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter


class Tiny:
    """`GET /stream` sends one event and then waits for ever; `GET /whole` waits for ever. `closed` counts its ends."""

    def __init__(self, streams: Streams, verifier: KeyVerifier) -> None:
        self.streams, self.verifier, self.closed = streams, verifier, 0
        self.http: httpx2.AsyncClient

    async def stream(self, call: Call[None]) -> Response:
        return EventStream(self.events(), self.streams.held(call.identity))

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            yield event("delta", {"text": "first"})
            await asyncio.Event().wait()
        finally:
            self.closed += 1

    async def whole(self, call: Call[None]) -> Response:
        async with until_gone(call.request.receive), self.streams.held(call.identity):
            await asyncio.Event().wait()
        return Response()


@asynccontextmanager
async def tiny(dsn: str, streams: Streams) -> AsyncIterator[Tiny]:
    metrics, stop = Metrics(), asyncio.Event()
    async with Database(load(database_url=dsn, db_pool_size=1, db_max_overflow=4), metrics) as db:
        verifier = KeyVerifier(db, Failover[Revocations](None, None, MemoryRevocations()))
        door = Tiny(streams, verifier)
        server = Server(
            app(door, db, metrics), Starlette(), ServerConfig(port=0, private_port=0, exit_s=None, drain_s=1)
        )
        serving = asyncio.create_task(server.run(stop))
        await server.started.wait()
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as door.http:
            yield door
        stop.set()
        await serving


def app(door: Tiny, db: Database, metrics: Metrics) -> Starlette:
    tickets = Tickets(Failover[TicketStore](None, None, MemoryTickets()))
    blocks = Blocks(db)
    authenticator = Authenticator(door.verifier, tickets, blocks, metrics)
    windows = Failover[Windows](None, None, MemoryWindows())
    limiter = RateLimiter(windows, Policies(dict.fromkeys(POLICIES, "1000000/second")), metrics)
    gate = Gate(authenticator, Limiters(limiter, limiter), blocks, Callers([]), metrics)
    observers = Observers(metrics, NoOpTracer(), ErrorReporter(load(), "test", lambda: None))
    made = Starlette(middleware=[Middleware(Context, observers)], exception_handlers=EXCEPTION_HANDLERS)
    operations = [
        Operation("GET", "/stream", door.stream, "chat"),
        Operation("GET", "/whole", door.whole, "chat"),
    ]
    made.router = Table([route(operation, gate) for operation in operations])
    return made


def parsed(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: name and data."""
    lines = [block.split("\n") for block in text.strip().split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]
