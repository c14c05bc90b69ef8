"""The map: every middleware in order, and the whole route table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from service.http.auth import Authenticator
from service.http.context import Context, Observers
from service.http.handshake import SocketEndpoint
from service.http.operation import Operation, route
from service.http.problems import EXCEPTION_HANDLERS
from service.http.table import Table
from service.routes.admin import AdminRoutes
from service.routes.admin_requests import BroadcastRequest, DisconnectRequest
from service.routes.answering import ChatRequest
from service.routes.catalogue import CatalogueRoutes
from service.routes.chat import ChatRoutes
from service.routes.health import PrivateRoutes, healthz
from service.routes.presence import HeartbeatRequest, PresenceRoutes
from service.routes.session import TicketRoutes


@dataclass(frozen=True)
class Handlers:
    """The groups of handlers, made by `wiring/`."""

    catalogue: CatalogueRoutes
    chat: ChatRoutes
    presence: PresenceRoutes
    tickets: TicketRoutes
    admin: AdminRoutes


def operations(to: Handlers) -> list[Operation]:
    """Every operation that needs a key: method, path, handler, scope, body."""
    return [
        Operation("POST", "/api/v1/chat", to.chat.create, "chat", ChatRequest),
        Operation("GET", "/api/v1/agents", to.catalogue.list_agents, "read"),
        Operation("GET", "/api/v1/models", to.catalogue.list_models, "read"),
        Operation("POST", "/api/v1/ws-tickets", to.tickets.create, "chat"),
        Operation("POST", "/api/v1/presence/heartbeat", to.presence.heartbeat, "chat", HeartbeatRequest),
        Operation("DELETE", "/api/v1/presence/heartbeat/{session_id:path}", to.presence.leave, "chat"),
        Operation("GET", "/api/admin/stats/online-users", to.admin.online_users, "admin"),
        Operation("GET", "/api/admin/stats/system", to.admin.system, "admin"),
        Operation("GET", "/api/admin/stats/websocket", to.admin.websocket, "admin"),
        Operation("GET", "/api/admin/stats/dashboard", to.admin.dashboard, "admin"),
        Operation("POST", "/api/admin/broadcast", to.admin.broadcast, "admin", BroadcastRequest),
        Operation("GET", "/api/admin/users/online", to.admin.online, "admin"),
        Operation(
            "POST", "/api/admin/users/{user_id:path}/disconnect", to.admin.disconnect, "admin", DisconnectRequest
        ),
        Operation("DELETE", "/api/admin/users/{user_id:path}/block", to.admin.lift_block, "admin"),
        Operation("POST", "/api/admin/drain", to.admin.drain, "admin"),
        Operation("DELETE", "/api/admin/drain", to.admin.end_drain, "admin"),
    ]


def public_app(
    operations: Sequence[Operation], session: SocketEndpoint[Any], authenticator: Authenticator, observers: Observers
) -> Starlette:
    """What the public port serves. What is not in the table is 404, the private port's paths too."""
    app = Starlette(
        middleware=[
            Middleware(Context, observers),  # request id, span, metrics, access log, unforeseen errors
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router = Table(
        routes=[
            Route("/healthz", healthz),
            WebSocketRoute("/ws/session", session),
            *(route(operation, authenticator) for operation in operations),
        ]
    )
    return app


def private_app(private: PrivateRoutes) -> Starlette:
    """What the private port serves, to the scraper and the orchestrator only."""
    return Starlette(routes=private.routes())
