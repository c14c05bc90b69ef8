"""What the bridge does where Sentry refuses, asks to wait, or would hear too much; the sink is scripted."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from service.alerting.bridge import Bridge
from service.alerting.ingest import SentryIngest
from service.alerting.told import MOST, Told
from service.alerting.webhook import Notification
from service.errors import SettingsError, Unavailable
from service.telemetry.bridge_metrics import BridgeMetrics
from tests.observability.bridges import alert, group
from tests.telemetry.sinks import Sink

SENDER = {"release": "atp@test", "environment": "test"}


@dataclass
class Scene:
    bridge: Bridge
    metrics: BridgeMetrics
    now: list[float]

    async def take(self, *alerts: dict[str, Any], **changes: Any) -> None:
        await self.bridge.take(Notification.model_validate(group(*alerts, **changes)))

    def counted(self, series: str, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value(series, {"outcome": outcome})

    def alerts(self) -> list[float | None]:
        """Sent, failed, refused."""
        return [self.counted("atp_bridge_alerts_total", outcome) for outcome in ("sent", "failed", "refused")]


@asynccontextmanager
async def scene(dsn: str) -> AsyncIterator[Scene]:
    now = [0.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731 - one line beside the list that it reads
    metrics = BridgeMetrics()
    async with SentryIngest(dsn, "atp-alert-bridge/test", clock) as sentry:
        yield Scene(Bridge(sentry, metrics, SENDER, clock), metrics, now)


def many(count: int) -> list[dict[str, Any]]:
    return [alert(fingerprint=f"f{number}", summary=f"alert {number}") for number in range(count)]


async def test_of_a_storm_sixty_a_minute_are_sent_and_the_rest_when_it_is_told_again(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        with pytest.raises(Unavailable) as refused:
            await here.take(*many(100))
        assert refused.value.retry_after_s == 60
        assert (len(collector.events()), here.alerts()) == (60, [60, 1, 0])
        here.now[0] = 60.0
        await here.take(*many(100))
        assert here.alerts() == [100, 1, 0]
    said = [event["logentry"]["formatted"] for event in collector.events()]
    assert said == [f"alert {number}" for number in range(100)]


async def test_tickets_leave_room_for_twenty_pages_a_minute(collector: Sink) -> None:
    ticket = {"alertname": "AtpCacheHitLow", "severity": "ticket"}
    tickets = [alert(fingerprint=f"t{number}", labels=ticket) for number in range(60)]
    async with scene(collector.sentry_dsn) as here:
        with pytest.raises(Unavailable):
            await here.take(*tickets)
        await here.take(*many(20))
        with pytest.raises(Unavailable):
            await here.take(alert(fingerprint="one-more"))
    levels = [event["level"] for event in collector.events()]
    assert levels == ["warning"] * 40 + ["fatal"] * 20


WATCHDOG = {"alertname": "AtpWatchdog", "check_in": "atp-watchdog"}


@pytest.mark.parametrize(
    ("limits", "events", "check_ins"),
    [
        ("60:error:organization", False, True),
        ("60:monitor:organization", True, False),
        ("60::organization", False, False),
        ("60:transaction;default:key:quota, 2700:replay", False, True),
        ("60:transaction:key, soon:error, :", True, True),
    ],
)
async def test_a_limit_of_sentrys_holds_back_what_it_names_and_for_so_long(
    collector: Sink, limits: str, events: bool, check_ins: bool
) -> None:
    async def goes(here: Scene, *alerts: dict[str, Any]) -> bool:
        asked = collector.asked
        with contextlib.suppress(Unavailable):
            await here.take(*alerts)
        return collector.asked > asked

    async with scene(collector.sentry_dsn) as here:
        collector.headers = f"x-sentry-rate-limits: {limits}\r\n"
        await here.take(alert(fingerprint="first"))
        collector.headers = ""
        assert await goes(here, alert(fingerprint="second")) is events
        assert await goes(here, alert(labels=WATCHDOG)) is check_ins
        here.now[0] = 60.0
        assert await goes(here, alert(fingerprint="third"))
        assert await goes(here, alert(labels=WATCHDOG))


async def test_what_still_fires_an_hour_later_is_told_again_to_the_same_issue(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        for moment in (0.0, 3599.0, 3600.0):
            here.now[0] = moment
            await here.take()
    first, second = collector.events()
    assert first["fingerprint"] == second["fingerprint"]


async def test_what_fires_anew_after_it_was_resolved_is_told_at_once(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        again = alert() | {"startsAt": "2026-11-23T10:20:00Z"}
        for news in (alert(), alert("resolved"), again):
            await here.take(news)
    assert [event["tags"]["status"] for event in collector.events()] == ["firing", "resolved", "firing"]
    assert len({tuple(event["fingerprint"]) for event in collector.events()}) == 1


async def test_an_event_that_sentry_will_never_take_does_not_hold_up_the_others(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        collector.status = 400
        await here.take()
        collector.status = 200
        await here.take(*many(1))
        assert here.alerts() == [1, 0, 1]


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 502])
async def test_what_can_be_mended_is_not_acknowledged(collector: Sink, status: int) -> None:
    async with scene(collector.sentry_dsn) as here:
        collector.status = status
        with pytest.raises(Unavailable):
            await here.take()
        collector.status = 200
        await here.take()
        assert here.alerts() == [1, 1, 0]


async def test_asked_to_wait_by_sentry_it_asks_nothing_until_then(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        collector.status, collector.headers = 429, "retry-after: 30\r\n"
        for moment, wait_s in ((0.0, 30.0), (10.0, 20.0)):
            here.now[0] = moment
            with pytest.raises(Unavailable) as refused:
                await here.take()
            assert refused.value.retry_after_s == wait_s
        assert collector.asked == 1
        collector.status, here.now[0] = 200, 30.0
        await here.take()
        assert here.alerts() == [1, 2, 0]


async def test_a_silent_sentry_holds_nobody(collector: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.alerting.bridge.NOTIFICATION_S", 0.2)
    collector.silent = True
    async with scene(collector.sentry_dsn) as here:
        with pytest.raises(Unavailable, match="Sentry is too slow"):
            await here.take()
        assert here.alerts() == [0, 1, 0]


async def test_a_check_in_of_no_monitor_is_counted_and_holds_up_nobody(collector: Sink) -> None:
    async with scene(collector.sentry_dsn) as here:
        await here.take(alert(labels={"alertname": "Odd", "check_in": "No Slug"}), *many(1))
        assert here.alerts() == [1, 0, 0]
        assert here.counted("atp_bridge_check_ins_total", "failed") == 1
    assert collector.check_ins() == []


async def test_where_there_is_no_sentry_alerts_wait_and_nothing_counts_as_lost() -> None:
    """The DSN that deploy/make_secrets.py gives the bridge without SENTRY_DSN."""
    async with scene("http://none@sentry.invalid/1") as here:
        watchdog = {"labels": {"alertname": "AtpWatchdog", "check_in": "atp-watchdog"}}
        await here.take(alert() | watchdog)
        await here.take(alert("resolved") | watchdog)
        with pytest.raises(Unavailable, match=r"^SENTRY_DSN names no Sentry\.$"):
            await here.take(*many(100))
        check_ins = [here.counted("atp_bridge_check_ins_total", outcome) for outcome in ("sent", "failed", "unset")]
        assert check_ins == [0, 0, 1]
        assert (here.alerts(), here.counted("atp_bridge_alerts_total", "unset")) == ([0, 0, 0], 100)


@pytest.mark.parametrize(
    ("dsn", "nowhere"),
    [
        ("http://none@sentry.invalid/1", True),
        ("http://none@sentry.invalid:8000/1", True),
        ("http://key@sentry.example/1", False),
        ("http://key@sentry.invalid.example/1", False),
        ("http://key.invalid@sentry.example/1", False),
    ],
)
def test_only_a_host_under_invalid_is_no_sentry(dsn: str, nowhere: bool) -> None:
    ingest = SentryIngest(dsn, "atp-alert-bridge/test")
    assert (ingest.nowhere, ingest.up) == (nowhere, not nowhere)


async def test_what_is_too_long_for_sentry_is_cut(collector: Sink) -> None:
    labels = {"alertname": "Long", "severity": "ticket", "text": "a\nb" + "x" * 500, "odd label": "1", "empty": ""}
    async with scene(collector.sentry_dsn) as here:
        await here.take(alert(labels=labels, description="d" * 5000), truncatedAlerts=7)
    (event,) = collector.events()
    assert event["level"] == "warning"
    assert event["tags"] == {"alertname": "Long", "severity": "ticket", "text": "a b" + "x" * 197, "status": "firing"}
    assert event["contexts"]["alert"]["description"] == "d" * 1999 + "…"
    assert event["contexts"]["alert"]["not_shown"] == 7


async def test_an_alert_without_annotations_is_called_by_its_name(collector: Sink) -> None:
    bare = alert(labels={"alertname": "Bare"}) | {"annotations": {}}
    async with scene(collector.sentry_dsn) as here:
        await here.take(bare)
    (event,) = collector.events()
    assert (event["logentry"], event["level"]) == ({"formatted": "Bare"}, "info")


def test_the_memory_of_what_was_told_is_bounded() -> None:
    told = Told(lambda: 0.0)
    for number in range(MOST + 1):
        told.add((str(number),))
    assert [(str(number),) in told for number in (0, 1, MOST)] == [False, True, True]


@pytest.mark.parametrize("dsn", ["garbage", "http://nokey.example/1", "http://S3CRET@sentry.example/project"])
def test_a_dsn_that_is_none_is_refused_and_not_quoted(dsn: str) -> None:
    with pytest.raises(SettingsError, match=r"^SENTRY_DSN: copy it from the project's settings in Sentry$"):
        SentryIngest(dsn, "test")
