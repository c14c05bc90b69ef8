"""An operation of the API: one line of the route table in `app.py`, and the way every request to it goes."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http.auth import Authenticator
from service.http.body import BODY_BYTES, read_json
from service.http.disconnect import ClientGone
from service.keys.verifier import Identity

Body = TypeVar("Body")


@dataclass(frozen=True)
class Call(Generic[Body]):
    """A request that passed: who calls, and the validated body (None for operations without one)."""

    request: Request
    identity: Identity
    body: Body
    started: float = field(default_factory=time.perf_counter)

    @property
    def request_id(self) -> str:
        return str(self.request.scope["atp.request_id"])


Handler = Callable[[Call[Any]], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """What the table says of a route. Every operation needs a key with `scope`; its docstring is its description."""

    method: str
    path: str
    handler: Handler
    scope: str
    body: type[BaseModel] | None = None
    body_bytes: int = BODY_BYTES


class Endpoint:
    """authenticate -> read and validate the body -> handler -> response.

    An ASGI application and not a function: Starlette would wrap a function in a second layer of exception handling.
    """

    def __init__(self, operation: Operation, authenticator: Authenticator) -> None:
        self._operation, self._authenticator = operation, authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operation
        identity = await self._authenticator.identify(scope, operation.scope)
        request = Request(scope, receive, send)
        body = await read_json(request, operation.body, operation.body_bytes) if operation.body else None
        try:
            response = await operation.handler(Call(request, identity, body))
            await response(scope, receive, send)
        except ClientGone:
            return  # nobody is there to answer; the access log and metrics say 499


def route(operation: Operation, authenticator: Authenticator) -> Route:
    return Route(operation.path, Endpoint(operation, authenticator), methods=[operation.method], name=operation.path)
