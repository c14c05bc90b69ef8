"""Health: `/healthz` for the public, and the private port's `/metrics`, `/livez`, `/readyz`."""

import asyncio
from collections.abc import Callable

from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service.telemetry.instruments import Instruments


async def healthz(_: Request) -> Response:
    """Says that this port answers, and nothing of the inside.

    A comment is an exposition without series, so Prometheus itself can be the probe: its `up` says who answers.
    """
    return PlainTextResponse("# ok\n")


class PrivateRoutes:
    """What the private port serves. `checks` gives each dependency's state, for people; it does not decide readiness:
    with a dependency away every node would leave the load balancer at once, and ATP is built to go on without it."""

    def __init__(
        self, metrics: Instruments, draining: Callable[[], bool], checks: Callable[[], dict[str, bool]]
    ) -> None:
        self._metrics, self._draining, self._checks = metrics, draining, checks

    def routes(self) -> list[Route]:
        return [
            Route("/metrics", self.metrics),
            Route("/livez", healthz),
            Route("/readyz", self.readyz),
        ]

    async def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics (with exemplars) for a scraper that asks for it."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # In a thread the interpreter shares its time with the loop; inline a large scrape would stall it whole.
        body = await asyncio.to_thread(encode, self._metrics.registry)
        return Response(body, headers={"content-type": content_type})

    async def readyz(self, _: Request) -> Response:
        """200 while new work is welcome, 503 once draining."""
        draining = self._draining()
        body = {"ready": not draining, "dependencies": self._checks()}
        return Response(to_json(body), 503 if draining else 200, media_type="application/json")
