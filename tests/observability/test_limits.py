"""A panel and the alert that it names: they look at the same, and the panel turns red where the alert fires."""

import re

import pytest

from tests.observability.boards import BOARDS, all_queries, panels
from tests.observability.rules import rules

# Of a panel the query that an alert is about, and the alert, or the rule whose name an SLO's alert reads.
SAME = [
    ("atp-limits-keys / Refused API keys / B", "AtpAuthFailureSpike"),
    ("atp-limits-keys / Limited / A", "AtpLimitedRatioHigh"),
    ("atp-tasks-models / Failed model calls / B", "AtpLLMUpstreamErrors"),
    ("atp-websockets / Messages dropped / A", "AtpWSBackpressure"),
    ("atp-websockets / Delivered late / A", "atp:slo_errors:rate5m ws_delivery"),
    ("atp-websockets / WebSocket delivery lag / A", "atp:slo_errors:rate5m ws_delivery"),
]
OF_TARGETS = ("job", "instance", "le")


def chosen(expression: str) -> dict[str, set[str]]:
    """By histogram, or series: what it is selected by, but for where it was scraped."""
    found: dict[str, set[str]] = {}
    for name, inside in re.findall(r"\b((?:atp|gen|http)_\w+)(?:\{([^}]*)\})?", expression):
        matchers = re.findall(r'(\w+)(!?=~?)("[^"]*")', inside)
        kept = {f"{label}{how}{value}" for label, how, value in matchers if label not in OF_TARGETS}
        found.setdefault(re.sub(r"_(bucket|count)$", "", name), set()).update(kept)
    return found


@pytest.mark.parametrize(("query", "rule"), SAME)
def test_a_panel_counts_what_its_alert_counts(query: str, rule: str) -> None:
    (shown,) = (asked.text for asked in all_queries() if asked.name == query)
    name, _, slo = rule.partition(" ")
    (told,) = (each.expression for each in rules() if each.name == name and each.labels.get("slo", "") == slo)
    assert chosen(shown) == chosen(told) != {}


def test_telemetry_lost_shows_every_signal_that_its_alert_tells_of() -> None:
    shown = {query.text for query in all_queries() if query.name.startswith("atp-on-call / Telemetry lost / ")}
    (told,) = (rule.expression for rule in rules() if rule.name == "AtpTelemetryLoss")
    assert chosen(" + ".join(shown)) == chosen(told)


# Panel, the alert that its description names, where its colour changes, and what the alert compares with.
TIED = [
    ("Age of the snapshot", "AtpFleetSnapshotStale", 30, "> 30\n"),
    ("Burn rate over 1h", "AtpErrorBudgetBurn", 14.4, "rate1h > 14.4 *"),
    ("Burn rate over 3d", "AtpErrorBudgetBurn", 1, "rate3d > 1 *"),
    ("Burn rate over 6h", "AtpErrorBudgetBurn", 6, "rate6h > 6 *"),
    ("Callers waiting for a connection", "AtpPoolExhausted", 1, "pending_requests > 0\n"),
    ("Database connections of the pool", "AtpPoolExhausted", 1, ">= on (job, instance, pool) db_client_connection_max"),
    ("Drift of the counters", "AtpPresenceDrift", 1, "> 0 or max(atp_fleet_presence_drift) < 0"),
    ("Event loop lag, p99", "AtpLoopLagHigh", 0.1, "> 0.1"),
    ("Failed model calls", "AtpLLMUpstreamErrors", 0.1, "> 0.1\n"),
    ("Labels that became `other`", "AtpCardinality", 1e-9, "> 0"),
    ("Limited", "AtpLimitedRatioHigh", 0.1, "> 0.1\n"),
    ("Limits counted by each node alone", "AtpRateLimiterDegraded", 1, "> 0"),
    ("Messages dropped", "AtpWSBackpressure", 0.01, "> 0.01\n"),
    ("Oldest waiting task", "AtpQueueStuck", 600, "> 600\n"),
    ("Oldest waiting task", "AtpQueueStuck", 3600, "> 3600"),
    ("Refused API keys", "AtpAuthFailureSpike", 1, "> 1"),
    ("Samples of a scrape", "AtpCardinality", 1500, "> 1500"),
    ("Since the last backup", "AtpBackupStale", 93600, "> 93600\n"),
    ("Sockets of the limit", "AtpWSCapacity", 0.8, "> 0.8"),
    ("Spooled usage rows", "AtpUsageSpoolGrowing", 1, "> 0 and"),
    ("Telemetry lost", "AtpTelemetryLoss", 1e-9, "> 0\n"),
]
# Of the SLOs: panel, objective, where its colour changes.
PROMISED = [
    ("Errors", "availability", 0.001),
    ("Delivered late", "ws_delivery", 0.005),
]
WITHIN_HALF_A_SECOND = [("Response time", "latency"), ("WebSocket delivery lag", "ws_delivery")]
# The one always fires; the other's limit is a line.
UNTIED = {("Alarm chain", "AtpWatchdog"), ("Redis memory", "AtpRedisMemoryHigh")}
PANELS = [panel for board in BOARDS.values() for panel in panels(board)]


def changes(title: str) -> set[tuple[float, ...]]:
    """Where the colour of the panels of this title changes: one set of values, since they are the same everywhere."""
    found = [panel["fieldConfig"]["defaults"]["thresholds"]["steps"] for panel in PANELS if panel["title"] == title]
    return {tuple(step["value"] for step in steps if step["value"] is not None) for steps in found}


@pytest.mark.parametrize(("title", "alert", "limit", "compared"), TIED)
def test_a_panel_changes_its_colour_where_its_alert_fires(title: str, alert: str, limit: float, compared: str) -> None:
    (steps,) = changes(title)
    assert limit in steps
    assert limit == steps[-1] or (title, limit) == ("Oldest waiting task", 600)
    assert [rule.name for rule in rules() if rule.name == alert and compared in f"{rule.expression}\n"] == [alert]


def test_every_panel_that_names_an_alert_is_tied_to_it_or_says_why_it_has_no_limit() -> None:
    named, excused = set(), set()
    for panel in PANELS:
        told, _, why = panel["description"].partition("No threshold: ")
        named |= {(panel["title"], alert) for alert in re.findall(r"\bAtp[A-Z]\w+", told)}
        excused |= {(panel["title"], alert) for alert in re.findall(r"\bAtp[A-Z]\w+", why)}
    assert named == {(title, alert) for title, alert, _, _ in TIED} | UNTIED
    assert {alert for _, alert in excused} == {
        "AtpCacheHitLow",
        "AtpTaskStale",
        "AtpUsageSpoolGrowing",
        "AtpWSDropStorm",
    }


def test_the_line_of_redis_memory_is_where_its_alert_fires() -> None:
    asked = {query.text for query in all_queries() if query.panel == "Redis memory" and query.ref == "C"}
    assert [text.split(" * ")[0] for text in asked] == ["0.8"]
    (told,) = (rule.expression for rule in rules() if rule.name == "AtpRedisMemoryHigh")
    assert told.endswith("> 0.8")


@pytest.mark.parametrize(("title", "slo", "limit"), PROMISED)
def test_a_panel_changes_its_colour_where_its_promise_ends(title: str, slo: str, limit: float) -> None:
    objective = f"vector({1 - limit})"
    assert [r.expression for r in rules() if (r.name, r.labels.get("slo")) == ("atp:slo_objective", slo)] == [objective]
    assert changes(title) == {(limit,)}


@pytest.mark.parametrize(("title", "slo"), WITHIN_HALF_A_SECOND)
def test_a_panel_changes_its_colour_at_the_promised_time(title: str, slo: str) -> None:
    (errors,) = (r.expression for r in rules() if (r.name, r.labels.get("slo")) == ("atp:slo_errors:rate5m", slo))
    assert set(re.findall(r'le="([^"]*)"', errors)) == {"0.5"}
    assert changes(title) == {(0.5,)}
