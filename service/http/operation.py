"""An operation of the API: one line of the route table in `app.py`, and the way every request to it goes."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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


def route(operation: Operation, authenticator: Authenticator) -> Route:
    """authenticate -> read and validate the body -> handler."""

    async def endpoint(request: Request) -> Response:
        identity = await authenticator.identify(request.scope, operation.scope)
        body = await read_json(request, operation.body, operation.body_bytes) if operation.body else None
        try:
            return await operation.handler(Call(request, identity, body))
        except ClientGone:
            return NoResponse()

    return Route(operation.path, endpoint, methods=[operation.method])


class NoResponse(Response):
    """Nothing, for nobody: the client left. The access log and metrics say 499."""

    async def __call__(self, *_: Any) -> None:
        return
