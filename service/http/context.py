"""The outermost middleware: request id, span, metrics, access log, and the last word on errors nobody foresaw."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from opentelemetry import context as otel_context
from opentelemetry.trace import NoOpTracer, Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AtpError
from service.http.problems import answer_for
from service.telemetry.logging import RequestLine
from service.telemetry.metrics import Metrics
from service.telemetry.operations import of_trace
from service.telemetry.sentry import ErrorReporter
from service.telemetry.spans import StartRequestSpan

log = structlog.get_logger()

# What a caller may send as its own id: nothing that could break a log line or a header.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{8,128}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
METHOD_CHARS = 32  # of one that nobody knows
CLIENT_CLOSED = 499  # nginx's number for "the client left before the answer"
PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True)
class Observers:
    """Where a request leaves its traces."""

    metrics: Metrics
    tracer: Tracer
    reporter: ErrorReporter
    access_log: Callable[[RequestLine], None] = lambda line: None
    start_request_span: StartRequestSpan = NoOpTracer().start_span


class Exchange:
    """One request and its answer while it lasts."""

    __slots__ = ("_send", "method", "request_id", "scope", "span", "started", "status")

    def __init__(self, scope: Scope, send: Send, span: Span, request_id: str) -> None:
        self.scope, self._send, self.span, self.request_id = scope, send, span, request_id
        self.method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        self.started = time.perf_counter()
        self.status = 0

    @property
    def route(self) -> str:
        """The template that matched, so that a path never becomes a label."""
        return getattr(self.scope.get("route"), "path_format", "unmatched")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] += [(b"x-request-id", self.request_id.encode()), *self.scope["atp.headers"]]
        await self._send(message)


class Context:
    """Pure ASGI: BaseHTTPMiddleware would break contextvars and cancellation."""

    def __init__(self, app: ASGIApp, observers: Observers) -> None:
        self._app, self._observers = app, observers
        self._durations = observers.metrics.http_durations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        request_id = scope["atp.request_id"] = request_id_of(headers)
        scope["atp.headers"] = []  # what any part on the way adds to the answer, a problem's too
        span = self._observers.start_request_span(scope["method"], parent_context(headers))
        exchange = Exchange(scope, send, span, request_id)
        # hypercorn gives every request a task of its own, so neither needs undoing.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        otel_context.attach(set_span_in_context(exchange.span))
        with self._observers.metrics.http_active.track_inprogress():
            await self._answer(exchange, receive)

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        try:
            await self._app(exchange.scope, receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, counted, reported
            await self._unforeseen(exchange, receive, error)
        finally:
            self._observe(exchange)

    async def _unforeseen(self, exchange: Exchange, receive: Receive, error: Exception) -> None:
        self._observers.metrics.unhandled.labels("http").inc()
        log.error("request.unhandled", route=exchange.route, exc_info=error)
        self._observers.reporter.capture(error, request_id=exchange.request_id, route=exchange.route)
        exchange.span.record_exception(error)
        if not exchange.status:
            response = answer_for(Request(exchange.scope), AtpError())
            await response(exchange.scope, receive, exchange.send)

    def _observe(self, exchange: Exchange) -> None:
        duration_s = time.perf_counter() - exchange.started
        status, route, span = exchange.status or CLIENT_CLOSED, exchange.route, exchange.span
        trace_id, exemplar = span.get_span_context().trace_id, None
        if span.is_recording():
            exemplar = of_trace(trace_id)
            end_span(span, exchange.scope, exchange.method, route, status)
        self._durations(exchange.method, route, status).observe(duration_s, exemplar)
        line = RequestLine(exchange.request_id, trace_id, exchange.method, route, status, duration_s)
        self._observers.access_log(line)


def end_span(span: Span, scope: Scope, method: str, route: str, status: int) -> None:
    """Names and attributes of OpenTelemetry's HTTP server conventions, but for the path: it has ids."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "url.scheme": scope["scheme"],
    }
    name = method
    if method == "_OTHER":
        name, attributes["http.request.method_original"] = "HTTP", scope["method"][:METHOD_CHARS]
    span.update_name(f"{name} {route}")
    if key_prefix := scope.get("atp.key_prefix"):
        attributes["atp.key_prefix"] = key_prefix
    span.set_attributes(attributes)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))
    span.end()


def parent_context(headers: list[tuple[bytes, bytes]]) -> otel_context.Context | None:
    """The caller's trace, when it sent a `traceparent` (W3C Trace Context)."""
    parent = next((value for name, value in headers if name == b"traceparent"), None)
    return PROPAGATOR.extract({"traceparent": parent.decode("latin-1")}) if parent else None


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's X-Request-Id when it is sane, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode()
    return format(random.getrandbits(128), "032x")
