"""The map: every middleware in order, and the whole route table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from service.http.context import Context, Observers
from service.http.handshake import SocketEndpoint
from service.http.operation import Operation, route
from service.http.plain_context import PlainContext, PlainObservers
from service.http.problems import EXCEPTION_HANDLERS
from service.http.ratelimit import Gate
from service.http.table import Table
from service.routes.admin import AdminRoutes
from service.routes.admin_blocks import BlockRequest, BlockRoutes
from service.routes.admin_cache import AdminCacheRoutes
from service.routes.admin_requests import BroadcastRequest, DisconnectRequest
from service.routes.admin_tasks import AdminTaskRoutes
from service.routes.admin_users import UserRoutes
from service.routes.alerts import AlertRoutes
from service.routes.catalogue import CatalogueRoutes
from service.routes.chat import ChatRoutes
from service.routes.chat_requests import BatchRequest, ChatRequest
from service.routes.completion_requests import CompletionRequest
from service.routes.completions import CompletionRoutes
from service.routes.docs import DocsRoutes
from service.routes.health import PrivateRoutes, healthz
from service.routes.key_requests import GenerateRequest, NewUserRequest, RotateRequest, UserChange
from service.routes.keys import KeyRoutes
from service.routes.presence import HeartbeatRequest, PresenceRoutes
from service.routes.session import TicketRoutes
from service.routes.sessions import ConversationRoutes
from service.routes.task_events import TaskEvents
from service.routes.task_requests import BATCH_BYTES, TaskRequest
from service.routes.tasks import TaskRoutes
from service.routes.usage import UsageRoutes


@dataclass(frozen=True)
class Handlers:
    """The groups of handlers, made by `wiring/`."""

    catalogue: CatalogueRoutes
    chat: ChatRoutes
    completions: CompletionRoutes
    presence: PresenceRoutes
    tickets: TicketRoutes
    sessions: ConversationRoutes
    usage: UsageRoutes
    tasks: TaskRoutes
    task_events: TaskEvents
    admin: AdminRoutes
    admin_cache: AdminCacheRoutes
    admin_tasks: AdminTaskRoutes
    blocks: BlockRoutes
    keys: KeyRoutes
    users: UserRoutes


def operations(to: Handlers) -> list[Operation]:
    """Every operation that needs a key: method, path, handler, scope, body."""
    return [
        Operation("POST", "/api/v1/chat", to.chat.create, "chat", ChatRequest, policy="chat"),
        Operation("POST", "/api/v1/chat/batch", to.chat.batch, "chat", BatchRequest, policy="chat"),
        Operation("POST", "/v1/chat/completions", to.completions.create, "chat", CompletionRequest, policy="chat"),
        Operation("GET", "/v1/models", to.completions.list_models, "read"),
        Operation("GET", "/v1/models/{model:path}", to.completions.model, "read"),
        Operation("GET", "/api/v1/agents", to.catalogue.list_agents, "read"),
        Operation("GET", "/api/v1/models", to.catalogue.list_models, "read"),
        Operation("POST", "/api/v1/tasks", to.tasks.submit, "chat", TaskRequest, body_bytes=BATCH_BYTES, policy="chat"),
        Operation("GET", "/api/v1/tasks", to.tasks.list_tasks, "chat"),
        Operation("GET", "/api/v1/tasks/{task_id}", to.tasks.read, "chat"),
        Operation("DELETE", "/api/v1/tasks/{task_id}", to.tasks.cancel, "chat"),
        Operation("GET", "/api/v1/tasks/{task_id}/events", to.task_events.follow, "chat"),
        Operation("GET", "/api/v1/usage", to.usage.report, "read"),
        Operation("POST", "/api/v1/ws-tickets", to.tickets.create, "chat"),
        Operation("POST", "/api/v1/presence/heartbeat", to.presence.heartbeat, "chat", HeartbeatRequest),
        Operation("DELETE", "/api/v1/presence/heartbeat/{session_id:path}", to.presence.leave, "chat"),
        Operation("GET", "/api/v1/sessions", to.sessions.list_sessions, "chat"),
        Operation("GET", "/api/v1/sessions/{session_id:path}", to.sessions.read, "chat"),
        Operation("DELETE", "/api/v1/sessions/{session_id:path}", to.sessions.delete, "chat"),
        Operation("POST", "/api/v1/keys/generate", to.keys.generate, "keys", GenerateRequest),
        Operation("GET", "/api/v1/keys", to.keys.list_keys, "keys"),
        Operation("DELETE", "/api/v1/keys/{key_prefix}", to.keys.revoke, "keys"),
        Operation("POST", "/api/v1/keys/{key_prefix}/rotate", to.keys.rotate, "keys", RotateRequest),
        Operation("GET", "/api/admin/stats/online-users", to.admin.online_users, "admin"),
        Operation("GET", "/api/admin/stats/system", to.admin.system, "admin"),
        Operation("GET", "/api/admin/stats/websocket", to.admin.websocket, "admin"),
        Operation("GET", "/api/admin/stats/dashboard", to.admin.dashboard, "admin"),
        Operation("GET", "/api/admin/stats/tasks", to.admin_tasks.queue, "admin"),
        Operation("POST", "/api/admin/broadcast", to.admin.broadcast, "admin", BroadcastRequest),
        Operation("GET", "/api/admin/users/online", to.admin.online, "admin"),
        Operation(
            "POST", "/api/admin/users/{user_id:path}/disconnect", to.admin.disconnect, "admin", DisconnectRequest
        ),
        Operation("DELETE", "/api/admin/users/{user_id:path}/block", to.admin.lift_block, "admin"),
        Operation("POST", "/api/admin/blocks", to.blocks.create, "admin", BlockRequest),
        Operation("GET", "/api/admin/blocks", to.blocks.list_blocks, "admin"),
        Operation("DELETE", "/api/admin/blocks/{kind}/{subject:path}", to.blocks.lift, "admin"),
        Operation("POST", "/api/admin/users", to.users.create, "admin", NewUserRequest),
        Operation("GET", "/api/admin/users", to.users.list_users, "admin"),
        Operation("GET", "/api/admin/users/{user_id:path}", to.users.show, "admin"),
        Operation("PATCH", "/api/admin/users/{user_id:path}", to.users.change, "admin", UserChange),
        Operation("GET", "/api/admin/tasks", to.admin_tasks.list_tasks, "admin"),
        Operation("POST", "/api/admin/tasks/{task_id}/retry", to.admin_tasks.retry, "admin"),
        Operation("POST", "/api/admin/drain", to.admin.drain, "admin"),
        Operation("DELETE", "/api/admin/drain", to.admin.end_drain, "admin"),
        Operation("DELETE", "/api/admin/cache", to.admin_cache.flush_all, "admin"),
        Operation("DELETE", "/api/admin/cache/{agent_id}", to.admin_cache.flush_agent, "admin"),
    ]


def public_app(
    operations: Sequence[Operation],
    session: SocketEndpoint[Any],
    docs: DocsRoutes,
    gate: Gate,
    observers: Observers,
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
            *docs.routes(),  # for everybody: /openapi.json, /docs and its files
            *(route(operation, gate) for operation in operations),
        ]
    )
    return app


def private_app(private: PrivateRoutes) -> Starlette:
    """What the private port serves, to the scraper and the orchestrator only."""
    return Starlette(routes=private.routes())


def bridge_app(alerts: AlertRoutes, private: PrivateRoutes, observers: PlainObservers) -> Starlette:
    """What the alert bridge serves, to Alertmanager, the scraper and the orchestrator only."""
    return Starlette(
        middleware=[Middleware(PlainContext, observers)],
        exception_handlers=EXCEPTION_HANDLERS,
        routes=[*alerts.routes(), *private.routes()],
    )
