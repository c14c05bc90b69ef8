"""An operation of the API: one line of the route table in `app.py`, and the way every request to it goes."""

import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http.body import BODY_BYTES, read_json
from service.http.contract import Contract, contract_of
from service.http.disconnect import ClientGone
from service.http.ratelimit import Gate
from service.keys.verifier import Identity

Body = TypeVar("Body")
# The policy of an operation that names none, by its scope; "api" for the rest.
POLICY_OF_SCOPE = {"keys": "keys", "admin": "admin"}


async def free(requests: int) -> None:
    """Where nothing is limited."""


@dataclass(frozen=True)
class Call(Generic[Body]):
    """A request that passed: who calls, and the validated body (None for operations without one). `started`: when its
    head had come, by time.perf_counter(); so what a client waited for its own body is counted as it saw it.

    One request is charged before the body is read. `await call.charge(n - 1)` charges for the rest of a batch: all of
    it, or nothing and raises RateLimited.
    """

    request: Request
    identity: Identity
    body: Body
    started: float
    charge: Callable[[int], Awaitable[None]] = free

    @property
    def request_id(self) -> str:
        return str(self.request.scope["atp.request_id"])


Handler = Callable[[Call[Any]], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """What the table says of a route. Every operation needs a key with `scope`; its handler's docstring is its
    description, and what stands before the handler (`http/contract.py`) its contract.

    `policy` is the rate limit it counts under; by its scope where it is not given.
    """

    method: str
    path: str
    handler: Handler
    scope: str
    body: type[BaseModel] | None = None
    body_bytes: int = BODY_BYTES
    policy: str = ""

    def __post_init__(self) -> None:
        if not self.policy:
            object.__setattr__(self, "policy", POLICY_OF_SCOPE.get(self.scope, "api"))

    @property
    def contract(self) -> Contract:
        return contract_of(self.handler)


class Endpoint:
    """gate (who calls, blocks, limits) -> read and validate the body -> handler -> response.

    An ASGI application and not a function: Starlette would wrap a function in a second layer of exception handling.
    """

    def __init__(self, operation: Operation, gate: Gate) -> None:
        self._operation, self._gate = operation, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation, started = self._operation, time.perf_counter()
        identity = await self._gate.enter(scope, operation.scope, operation.policy)
        request = Request(scope, receive, send)
        body = await read_json(request, operation.body, operation.body_bytes) if operation.body else None
        charge = functools.partial(self._gate.charge, scope, identity, operation.policy, again=1)
        try:
            response = await operation.handler(Call(request, identity, body, started, charge))
            await response(scope, receive, send)
        except ClientGone:
            return  # nobody is there to answer; the access log and metrics say 499


def route(operation: Operation, gate: Gate) -> Route:
    return Route(operation.path, Endpoint(operation, gate), methods=[operation.method], name=operation.path)
