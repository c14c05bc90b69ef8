"""Where Alertmanager posts its groups of alerts."""

import hmac

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.alerting.bridge import Bridge
from service.alerting.webhook import Notification
from service.errors import Unauthorized
from service.http.body import read_json

# About 600 alerts in one group. Alertmanager does not try again what is too large, so the bound is far off.
BODY_BYTES = 1_000_000


class AlertRoutes:
    """`token` is what the caller must bear."""

    def __init__(self, bridge: Bridge, token: str) -> None:
        self._bridge, self._authorization = bridge, f"Bearer {token}".encode()

    def routes(self) -> list[Route]:
        return [Route("/alerts", self.take, methods=["POST"])]

    async def take(self, request: Request) -> Response:
        """204 once Sentry has all news of the group; 503 until then, and Alertmanager sends it again."""
        borne = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(borne, self._authorization):
            raise Unauthorized("Send the token of BRIDGE_TOKEN as bearer token.")
        await self._bridge.take(await read_json(request, Notification, BODY_BYTES))
        return Response(status_code=204)
