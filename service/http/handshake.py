"""A WebSocket's way to its handler: request id, a span of the handshake, refusals as problems, the last word on errors.

The handshake is a span of its own, for a socket lives for hours; what happens on it later are spans that link to it.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog
from opentelemetry.trace import Span, SpanKind, StatusCode, use_span
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from service.errors import AtpError
from service.http.context import Observers, parent_context, request_id_of
from service.http.problems import problem_response
from service.telemetry.logging import RequestLine

log = structlog.get_logger()

Visit = TypeVar("Visit")
INTERNAL_ERROR = 1011


class SocketEndpoint(Generic[Visit]):
    """`admit` says who may come in, before the handshake is answered: its AtpErrors are answered as over HTTP. `serve`
    has the socket from there on, accepts it, and returns when it is over. `count` is told how each handshake ended."""

    def __init__(
        self,
        admit: Callable[[WebSocket, Span], Awaitable[Visit]],
        serve: Callable[[WebSocket, Visit], Awaitable[None]],
        observers: Observers,
        count: Callable[[str], None],
    ) -> None:
        self._admit, self._serve, self._observers, self._count = admit, serve, observers, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["atp.request_id"] = request_id_of(scope["headers"])
        scope["atp.headers"] = []  # what any part on the way adds to a refusal
        structlog.contextvars.bind_contextvars(request_id=scope["atp.request_id"])
        websocket = WebSocket(scope, receive, send)
        try:
            visit = await self._handshake(websocket)
            if visit is not None:
                await self._serve(websocket, visit)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, counted, reported
            await self._unforeseen(websocket, error)

    async def _handshake(self, websocket: WebSocket) -> Visit | None:
        scope = websocket.scope
        context = parent_context(scope["headers"])
        route = scope["path"]
        span = self._observers.tracer.start_span(f"GET {route}", context=context, kind=SpanKind.SERVER)
        status, result, visit, started = 500, "internal", None, time.perf_counter()
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                visit = await self._admit(websocket, span)
            status, result = 101, ""
        except AtpError as error:
            status, result = error.status, str(error.extra.get("reason", error.code))
            await deny(websocket, error)
        finally:
            if result:  # an admitted one is counted when it is known whether there is a place
                self._count(result)
            told = {"http.request.method": "GET", "http.route": route, "http.response.status_code": status}
            scheme = scope["scheme"].replace("ws", "http")  # a handshake is a request (RFC 6455, 1.3)
            span.set_attributes({**told, "url.scheme": scheme})
            if key_prefix := scope.get("atp.key_prefix"):
                span.set_attribute("atp.key_prefix", key_prefix)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
            trace_id = span.get_span_context().trace_id
            took_s = time.perf_counter() - started
            self._observers.access_log(RequestLine(scope["atp.request_id"], trace_id, "GET", route, status, took_s))
        return visit

    async def _unforeseen(self, websocket: WebSocket, error: Exception) -> None:
        self._observers.metrics.unhandled.labels("websocket").inc()
        log.error("socket.unhandled", exc_info=error)
        self._observers.reporter.capture(
            error, request_id=websocket.scope["atp.request_id"], route=websocket.scope["path"]
        )
        with suppress(OSError, RuntimeError):  # it may be gone, or closing already
            if websocket.application_state is WebSocketState.CONNECTING:
                await deny(websocket, AtpError())
            else:
                await websocket.close(INTERNAL_ERROR, "internal error")


async def deny(websocket: WebSocket, error: AtpError) -> None:
    """Answer the handshake as any request is answered (the ASGI extension `websocket.http.response`)."""
    request_id = websocket.scope["atp.request_id"]
    response = problem_response(error, request_id)
    response.headers["x-request-id"] = request_id
    response.raw_headers.extend(websocket.scope["atp.headers"])
    response.headers["connection"] = "close"  # as the server does: nobody may reuse it (RFC 9112, 9.6)
    await websocket.send_denial_response(response)
