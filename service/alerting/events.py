"""Alerts in Sentry's words: an event with a fingerprint, or a check-in of a monitor.

Sources: Sentry's developer documentation, "Event Payloads", "Fingerprint" and "Check-Ins".
"""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from service.alerting.webhook import Alert, Labels, Notification

# `fatal` is told apart from a node's unhandled error, which is `error`: a rule in Sentry may wake somebody for it.
LEVELS = {"page": "fatal", "ticket": "warning"}
MONITOR = re.compile(r"[a-z0-9_-]{1,50}")
# Sentry drops a tag whose key or value is longer or has other characters.
TAG_KEY, TAG_VALUE_CHARS, TAGS = re.compile(r"[A-Za-z0-9_.:-]{1,32}"), 200, 40
TEXT_CHARS = 2000
# Alertmanager repeats what fires as its route says, every minute here; Sentry hears of silence after ten.
CHECK_IN_EVERY_MIN, CHECK_IN_MARGIN_MIN = 5, 5


def event(alert: Alert, group: Notification, told_at: datetime, sender: dict[str, str]) -> dict[str, Any]:
    """`sender` has release and environment. `told_at` is UTC."""
    resolved, summary = alert.status == "resolved", cut(alert.annotations.get("summary") or alert.name)
    return {
        **sender,
        "event_id": event_id(alert, told_at),
        "timestamp": told_at.isoformat(),
        "platform": "other",
        "logger": "alertmanager",
        "level": "info" if resolved else LEVELS.get(alert.labels.get("severity", ""), "info"),
        "logentry": {"formatted": f"Resolved: {summary}" if resolved else summary},
        "fingerprint": fingerprint(alert, group.group_labels),
        "tags": tags(alert),
        "contexts": {"alert": context(alert, group)},
    }


def event_id(alert: Alert, told_at: datetime) -> str:
    """The same for one piece of news within an hour: of what is sent twice, because an answer was lost or two bridges
    were told, Sentry keeps one."""
    news = (alert.fingerprint, alert.status, alert.starts_at.isoformat(), told_at.strftime("%Y-%m-%dT%H"))
    return uuid5(NAMESPACE_URL, "urn:atp:alert:" + ":".join(news)).hex


def fingerprint(alert: Alert, group_labels: Labels) -> list[str]:
    """One issue for an alert and its group, firing and resolved, however often."""
    return ["alert", alert.name, *(f"{name}={cut(value)}" for name, value in sorted(group_labels.items()))]


def tags(alert: Alert) -> dict[str, str]:
    told = {**alert.labels, "status": alert.status}
    usable = [(name, line(value)) for name, value in sorted(told.items()) if TAG_KEY.fullmatch(name) and value]
    return dict(usable[:TAGS])


def context(alert: Alert, group: Notification) -> dict[str, Any]:
    """What a person reads first: what is wrong, what to do, where to look."""
    said = alert.annotations
    found = {
        "description": said.get("description", ""),
        "runbook": said.get("runbook_url", ""),
        "dashboard": said.get("dashboard_url", ""),
        "expression": alert.generator_url,
    }
    told: dict[str, Any] = {name: cut(text) for name, text in found.items() if text}
    more = {"not_shown": group.truncated} if group.truncated else {}
    return {"type": "alert", **told, "since": alert.starts_at.astimezone(UTC).isoformat(), **more}


def check_in(monitor: str, sender: dict[str, str]) -> dict[str, Any]:
    """Sentry makes the monitor of `monitor_config` at the first check-in, and opens an issue when they stay away."""
    return {
        **sender,
        "check_in_id": uuid4().hex,
        "monitor_slug": monitor,
        "status": "ok",
        "monitor_config": {
            "schedule": {"type": "interval", "value": CHECK_IN_EVERY_MIN, "unit": "minute"},
            "checkin_margin": CHECK_IN_MARGIN_MIN,
            "failure_issue_threshold": 1,
            "recovery_threshold": 1,
        },
    }


def cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"


def line(text: str) -> str:
    return " ".join(text.split())[:TAG_VALUE_CHARS]
