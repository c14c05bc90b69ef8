"""The bridge: a group of alerts is acknowledged once Sentry has all of its news.

1. An alert with the label `check_in` that fires is a check-in of that monitor, each time; resolved it is nothing: the
   silence is the news, and Sentry hears it.
2. What was told already is passed over (`told.py`).
3. Every other alert is an event: EVENTS_PER_MINUTE at the most, of which OTHERS_PER_MINUTE may be no pages. What is
   over that, or not taken, is not acknowledged: Alertmanager sends the group again, and what is missing is told then.

Where there is no Sentry (`SentryIngest.nowhere`), nothing is tried and no alert acknowledged: it waits in Alertmanager.
That is no loss of telemetry, so it is counted as `unset` and not as `failed`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter

from service.alerting import events
from service.alerting.ingest import Refused, SentryIngest
from service.alerting.told import Told
from service.alerting.webhook import Alert, Notification
from service.errors import Unavailable
from service.telemetry.allowance import Allowance
from service.telemetry.bridge_metrics import BridgeMetrics

log = structlog.get_logger()

# Sentry's quota is for what nobody expected, too; an alert a second for a minute is a storm that grouping should tame.
EVENTS_PER_MINUTE = 60
# What is no page leaves room for those that are.
OTHERS_PER_MINUTE = 40
# Within Alertmanager's own patience (`group_interval`, 10 s at the least), the wait for an earlier group included.
NOTIFICATION_S = 8.0
AGAIN_S = 5.0
MINUTE_S = 60.0


class Bridge:
    """`sender` has the release and environment that events carry."""

    def __init__(
        self,
        sentry: SentryIngest,
        metrics: BridgeMetrics,
        sender: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sentry, self._metrics, self._sender = sentry, metrics, sender
        self._told, self._allowance = Told(clock), Allowance(EVENTS_PER_MINUTE, clock)
        self._of_others = Allowance(OTHERS_PER_MINUTE, clock)
        # Two Alertmanagers tell the same at the same time: the second must find what the first told.
        self._one_at_a_time = asyncio.Lock()

    async def take(self, group: Notification) -> None:
        """Return once Sentry has taken all of its news.

        Raises:
            Unavailable: some of it is still to be told; what was, is remembered.
        """
        if self._sentry.nowhere:
            self._keep_untold(group)
            return
        try:
            async with asyncio.timeout(NOTIFICATION_S), self._one_at_a_time:
                for alert in group.alerts:
                    await self._tell(alert, group)
        except TimeoutError:
            raise Unavailable("Sentry is too slow.", retry_after_s=AGAIN_S) from None

    def _keep_untold(self, group: Notification) -> None:
        """A check-in is of its moment, so nothing waits for it. Raises Unavailable when there are alerts."""
        untold = [alert for alert in group.alerts if alert.monitor is None]
        firing = [alert for alert in group.alerts if alert.monitor is not None and alert.status == "firing"]
        self._metrics.check_ins.labels("unset").inc(len(firing))
        self._metrics.alerts.labels("unset").inc(len(untold))
        if untold:
            raise Unavailable("SENTRY_DSN names no Sentry.", retry_after_s=MINUTE_S)

    async def _tell(self, alert: Alert, group: Notification) -> None:
        if alert.monitor is not None:
            await self._check_in(alert, alert.monitor)
            return
        news = (alert.fingerprint, alert.status, alert.starts_at.isoformat())
        if news in self._told:
            return
        page = alert.labels.get("severity") == "page"
        if not ((page or self._of_others.take()) and self._allowance.take()):
            self._metrics.alerts.labels("failed").inc()
            log.warning("alert.limited", alert=alert.name, per_minute=EVENTS_PER_MINUTE)
            raise Unavailable("So many alerts a minute are enough.", retry_after_s=MINUTE_S)
        event = events.event(alert, group, datetime.now(UTC), self._sender)
        outcome = await self._sent(alert, self._metrics.alerts, self._sentry.event(event))
        self._told.add(news)
        log.info("alert.told", alert=alert.name, status=alert.status, level=event["level"], outcome=outcome)

    async def _check_in(self, alert: Alert, monitor: str) -> None:
        if alert.status == "resolved":
            return
        if not events.MONITOR.fullmatch(monitor):
            log.error("alert.refused", alert=alert.name, reason="check_in is no slug of a monitor")
            self._metrics.check_ins.labels("failed").inc()
            return
        await self._sent(alert, self._metrics.check_ins, self._sentry.check_in(events.check_in(monitor, self._sender)))

    async def _sent(self, alert: Alert, counter: Counter, sending: Awaitable[None]) -> str:
        """What became of it: sent, or refused, which no second try would change. Raises Unavailable."""
        try:
            await sending
        except Refused as refusal:
            log.error("alert.refused", alert=alert.name, reason=f"Sentry answered {refusal.status}")
            outcome = "refused" if counter is self._metrics.alerts else "failed"
        except (Unavailable, asyncio.CancelledError):
            counter.labels("failed").inc()
            raise
        else:
            outcome = "sent"
        counter.labels(outcome).inc()
        return outcome
