"""Where Alertmanager posts its groups of alerts."""

import hmac

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.alerting.bridge import Bridge
from service.alerting.webhook import Notification
from service.errors import AtpError, Unauthorized
from service.http.body import read_json
from service.telemetry.allowance import Allowance

log = structlog.get_logger()

# About 600 alerts in one group. Alertmanager does not try again what is too large, so the bound is far off.
BODY_BYTES = 1_000_000
REFUSED_LINES_PER_MINUTE = 6


class AlertRoutes:
    """`token` is what the caller must bear. `refused` counts what got 4xx, by the code of its problem."""

    def __init__(self, bridge: Bridge, token: str, refused: Counter) -> None:
        self._bridge, self._authorization = bridge, f"Bearer {token}".encode()
        self._refused, self._lines = refused, Allowance(REFUSED_LINES_PER_MINUTE)

    def routes(self) -> list[Route]:
        return [Route("/alerts", self.take, methods=["POST"])]

    async def take(self, request: Request) -> Response:
        """204 once Sentry has all news of the group; 503 until then, and Alertmanager sends it again."""
        try:
            group = await self._read(request)
        except AtpError as error:
            self._refused.labels(error.code).inc()
            if self._lines.take():
                log.warning("notification.refused", reason=error.code)
            raise
        await self._bridge.take(group)
        return Response(status_code=204)

    async def _read(self, request: Request) -> Notification:
        borne = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(borne, self._authorization):
            raise Unauthorized("Send the token of BRIDGE_TOKEN as bearer token.")
        return await read_json(request, Notification, BODY_BYTES)
