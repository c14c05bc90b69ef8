"""A panel and the alert that it names: they look at the same, and the panel turns red where the alert fires."""

import re

import pytest

from tests.observability.boards import all_queries
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
