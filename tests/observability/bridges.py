"""The alert bridge as tests use it, and what Alertmanager posts to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from service.bridging import serve_bridge
from service.embedded.ports import HOST
from service.settings import Settings, load
from service.wiring.bridge import open_bridge

TOKEN = "-".join(["canary", "token", "of-24-characters"])  # joined: source text around a frame is sent to Sentry
PAGE = {"alertname": "AtpDown", "severity": "page", "instance": "node-1:9000", "dashboard": "atp-overview"}
SAID = {
    "summary": "A node of ATP does not answer",
    "description": "node-1:9000 has not answered for 2 minutes.",
    "runbook_url": "https://runbooks.example/AtpDown.md",
    "dashboard_url": "https://grafana.example/d/atp-overview",
}


def bridge_settings(dsn: str, **changes: Any) -> Settings:
    values = {"sentry_dsn": dsn, "bridge_token": TOKEN, "environment": "test", "log_format": "json"}
    return load(**values | changes)


class RunningBridge:
    """`http` is a client that bears the token; `stop` is its SIGTERM."""

    def __init__(self, port: int, stop: asyncio.Event) -> None:
        self.port, self.stop = port, stop
        self.http: httpx2.AsyncClient

    async def post(self, *alerts: dict[str, Any], **changes: Any) -> httpx2.Response:
        return await self.http.post("/alerts", json=group(*alerts, **changes))

    async def metric(self, name: str) -> float:
        text = (await self.http.get("/metrics")).text
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        return float(values[0]) if values else -1.0

    async def alerts(self) -> dict[str, float]:
        """How many, by outcome."""
        outcomes = ("sent", "failed", "refused")
        return {word: await self.metric(f'atp_bridge_alerts_total{{outcome="{word}"}}') for word in outcomes}


@asynccontextmanager
async def bridging(settings: Settings) -> AsyncIterator[RunningBridge]:
    """In this process; drained at the end."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with open_bridge(settings) as parts:
        serving = asyncio.create_task(serve_bridge(parts, HOST, 0, stop, ready.set_result))
        bridge = RunningBridge(await ready, stop)
        headers = {"authorization": f"Bearer {TOKEN}"}
        try:
            async with httpx2.AsyncClient(
                verify=False, base_url=f"http://{HOST}:{bridge.port}", headers=headers, timeout=20
            ) as bridge.http:
                yield bridge
        finally:
            stop.set()
            await serving


def alert(status: str = "firing", fingerprint: str = "f00d", labels: Any = None, **said: str) -> dict[str, Any]:
    """As Alertmanager 0.25 writes it."""
    return {
        "status": status,
        "labels": PAGE if labels is None else labels,
        "annotations": SAID | said,
        "startsAt": "2026-11-23T10:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2026-11-23T10:09:00Z",
        "generatorURL": "http://prometheus.example/graph?g0.expr=up",
        "fingerprint": fingerprint,
    }


def group(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As Alertmanager 0.25 writes it."""
    written = {
        "receiver": "sentry",
        "status": "firing",
        "alerts": list(alerts or [alert()]),
        "groupLabels": {"alertname": "AtpDown"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
        "version": "4",
        "groupKey": '{}:{alertname="AtpDown"}',
        "truncatedAlerts": 0,
    }
    return written | changes
