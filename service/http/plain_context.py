"""The outermost middleware of a process that has no traces: request id, and the last word on unforeseen errors."""

from dataclasses import dataclass

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AtpError
from service.http.context import request_id_of
from service.http.problems import answer_for
from service.telemetry.sentry import ErrorReporter

log = structlog.get_logger()


@dataclass(frozen=True)
class PlainObservers:
    """Who hears of an error; `unhandled` counts by component."""

    reporter: ErrorReporter
    unhandled: Counter


class PlainContext:
    """Pure ASGI, for HTTP only."""

    def __init__(self, app: ASGIApp, observers: PlainObservers) -> None:
        self._app, self._observers = app, observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = scope["atp.request_id"] = request_id_of(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = False

        async def identified(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] += [(b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, identified)
        except Exception as error:  # noqa: BLE001 - the outermost handler: logged, counted, reported
            self._unforeseen(scope, error)
            if not started:
                await answer_for(Request(scope), AtpError())(scope, receive, identified)

    def _unforeseen(self, scope: Scope, error: Exception) -> None:
        route = getattr(scope.get("route"), "path_format", "unmatched")
        self._observers.unhandled.labels("http").inc()
        log.error("request.unhandled", route=route, exc_info=error)
        self._observers.reporter.capture(error, request_id=scope["atp.request_id"], route=route)
