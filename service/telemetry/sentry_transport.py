"""The way of errors to Sentry, which counts what it loses: the SDK tells only Sentry, and that may be what is away."""

from collections.abc import Callable
from typing import Any

import structlog
from sentry_sdk.transport import HttpTransport

from service.telemetry.allowance import Allowance

log = structlog.get_logger()


def counting(dropped: Callable[[], None]) -> type[HttpTransport]:
    """A transport that calls `dropped` for each event that did not get through, whatever the reason, in any thread.

    The one way of losing that the SDK does not record is a 429, since Sentry has counted that itself.
    """
    lines = Allowance(1)

    def lost(reason: str) -> None:
        dropped()
        if lines.take():
            log.warning("errors.not_sent", reason=reason)

    class Transport(HttpTransport):
        TIMEOUT = 5  # s; the SDK's 30 would fill its queue of 100 behind a silent server

        def record_lost_event(
            self, reason: str, data_category: Any = None, item: Any = None, *, quantity: int = 1
        ) -> None:
            super().record_lost_event(reason, data_category, item, quantity=quantity)
            if (item.data_category if item else data_category) == "error":
                lost(reason)

        def on_dropped_event(self, reason: str) -> None:
            super().on_dropped_event(reason)
            if reason == "status_429":
                lost(reason)

    return Transport
