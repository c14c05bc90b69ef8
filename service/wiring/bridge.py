"""What the alert bridge is made of: Sentry, and the one application that Alertmanager and Prometheus ask."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette

from service.alerting.bridge import Bridge
from service.alerting.ingest import SentryIngest
from service.app import bridge_app
from service.errors import SettingsError
from service.http.plain_context import PlainObservers
from service.routes.alerts import AlertRoutes
from service.routes.health import PrivateRoutes
from service.settings import Settings
from service.telemetry import logging
from service.telemetry.bridge_metrics import BridgeMetrics
from service.telemetry.sentry import ErrorReporter
from service.wiring.ground import VERSION


@dataclass(frozen=True)
class BridgeParts:
    """One open bridge; set `draining` before its end."""

    app: Starlette
    metrics: BridgeMetrics
    draining: asyncio.Event


@asynccontextmanager
async def open_bridge(settings: Settings) -> AsyncIterator[BridgeParts]:
    """Raises SettingsError. Sentry being away is no fault: Alertmanager keeps what it is not rid of."""
    require_bridge(settings)
    metrics = BridgeMetrics(VERSION, os.environ.get("ATP_REVISION", "unknown"))  # set by the image's build
    release, dropped = f"atp@{VERSION}", metrics.telemetry_dropped
    sentry = SentryIngest(settings.sentry_dsn.get_secret_value(), f"atp-alert-bridge/{VERSION}")
    async with AsyncExitStack() as stack:
        stack.callback(logging.configure(settings, dropped.labels("logs").inc).close)
        reporter = ErrorReporter(settings, release, dropped.labels("errors").inc)
        stack.push_async_callback(asyncio.to_thread, reporter.close)
        await stack.enter_async_context(sentry)
        bridge = Bridge(sentry, metrics, {"release": release, "environment": settings.environment})
        draining = asyncio.Event()
        private = PrivateRoutes(metrics, draining.is_set, lambda: {"sentry": sentry.up})
        alerts = AlertRoutes(bridge, settings.bridge_token.get_secret_value(), metrics.refused)
        yield BridgeParts(bridge_app(alerts, private, PlainObservers(reporter, metrics.unhandled)), metrics, draining)


def require_bridge(settings: Settings) -> None:
    """Raises SettingsError for what the bridge cannot do without."""
    needed = {
        "SENTRY_DSN: the alert bridge needs it, or its file in SENTRY_DSN_FILE": settings.sentry_dsn,
        "BRIDGE_TOKEN: the alert bridge needs it, or its file in BRIDGE_TOKEN_FILE": settings.bridge_token,
    }
    if missing := [complaint for complaint, secret in needed.items() if not secret.get_secret_value()]:
        raise SettingsError("\n".join(missing))
