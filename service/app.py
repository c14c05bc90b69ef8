"""The map: every middleware in order, and the whole route table."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from service.http.auth import Authenticator
from service.http.context import Context, Observers
from service.http.operation import Operation, route
from service.http.problems import EXCEPTION_HANDLERS
from service.http.table import Table
from service.routes.catalogue import CatalogueRoutes
from service.routes.chat import ChatRequest, ChatRoutes
from service.routes.health import PrivateRoutes, healthz


def operations(catalogue: CatalogueRoutes, chat: ChatRoutes) -> list[Operation]:
    """Every operation that needs a key: method, path, handler, scope, body."""
    return [
        Operation("POST", "/api/v1/chat", chat.create, "chat", ChatRequest),
        Operation("GET", "/api/v1/agents", catalogue.list_agents, "read"),
        Operation("GET", "/api/v1/models", catalogue.list_models, "read"),
    ]


def public_app(operations: Sequence[Operation], authenticator: Authenticator, observers: Observers) -> Starlette:
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
            *(route(operation, authenticator) for operation in operations),
        ]
    )
    return app


def private_app(private: PrivateRoutes) -> Starlette:
    """What the private port serves, to the scraper and the orchestrator only."""
    return Starlette(routes=private.routes())
