"""The rules as promtool sees them, and what it does not look at: cases, runbooks, names of series."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.telemetry.catalogue import all_series
from tests.observability import alert_page
from tests.observability.promql import grouped, selectors, series
from tests.observability.rules import (
    CASES,
    PROMETHEUS,
    RULES,
    RUNBOOKS,
    Rule,
    alerts,
    groups_of_cases,
    queries_of_runbooks,
    rules,
)
from tests.observability.tools import succeed

ALERTS = alerts()
RECORDED = [rule for rule in rules() if not rule.alert]
GROUPS = list(groups_of_cases())
NAMES = sorted({alert.name for alert in ALERTS})
BY_WORD = [
    "ErrorBudgetBurn",
    "Down",
    "InstanceMissing",
    "ProbeFailed",
    "FleetSnapshotStale",
    "PresenceDrift",
    "DependencyDown",
    "WSDropStorm",
    "WSBackpressure",
    "WSCapacity",
    "RateLimiterDegraded",
    "LimitedRatioHigh",
    "AuthFailureSpike",
    "CacheHitLow",
    "QueueStuck",
    "TaskStale",
    "BackupStale",
    "LLMUpstreamErrors",
    "PoolExhausted",
    "UsageSpoolGrowing",
    "RedisMemoryHigh",
    "LoopLagHigh",
    "Cardinality",
    "TelemetryLoss",
    "Watchdog",
    "BackupFresh",
]
DASHBOARDS = {
    *("atp-overview", "atp-online-users", "atp-http-slo", "atp-websockets", "atp-limits-keys", "atp-cache"),
    *("atp-tasks-models", "atp-resources", "atp-on-call"),
}
# Of Prometheus itself about each target, and of the bridge, which has a registry of its own.
OF_OTHERS = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "dependency"},
    "scrape_samples_scraped": set(),
    "scrape_duration_seconds": set(),
    "atp_bridge_alerts_total": {"outcome"},
    "atp_bridge_check_ins_total": {"outcome"},
    "atp_bridge_refused_notifications_total": {"reason"},
}
# Labels that every scraped series has.
OF_TARGETS = {"job", "instance"}
QUERIES = [
    *((rule.name, rule.expression) for rule in rules()),
    *queries_of_runbooks(),
]


def named(rule: Rule) -> str:
    return f"{rule.name}-{'-'.join(sorted(rule.labels.values()))}"


def known_series() -> dict[str, set[str]]:
    recorded: dict[str, set[str]] = {rule.name: {"slo", "task", "cache"} for rule in RECORDED}
    of_nodes = {name: set(labels) for name, labels in all_series().items()}
    return {**of_nodes, **recorded, **OF_OTHERS}


def test_every_alert_of_the_list_is_there_and_no_other() -> None:
    assert sorted(f"Atp{word}" for word in BY_WORD) == NAMES


def test_promtool_finds_no_fault_in_the_rules() -> None:
    assert succeed("promtool", "check", "rules", *RULES).count("SUCCESS") == 7


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.name)
def test_the_alerts_fire_when_they_should(file: Path) -> None:
    succeed("promtool", "test", "rules", file)


def test_promtool_finds_no_fault_in_the_configuration_of_compose() -> None:
    assert "SUCCESS: 7 rule files found" in succeed("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_promtool_finds_no_fault_in_the_configuration_of_kubernetes(tmp_path: Path) -> None:
    """Debian builds Prometheus without this discovery: its block is looked at here, the rest by promtool."""
    text = (PROMETHEUS / "prometheus.kubernetes.yml").read_text()
    block = "    kubernetes_sd_configs: [{ role: pod, namespaces: { own_namespace: true } }]\n"
    assert text.count(block) == 1
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    (tmp_path / "prometheus.yml").write_text(text.replace(block, "    static_configs: [{ targets: ['a:1'] }]\n"))
    assert "SUCCESS: 7 rule files found" in succeed("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_both_configurations_scrape_under_the_names_that_the_rules_use() -> None:
    compose = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert [job["job_name"] for job in compose] == [
        *("atp", "atp-worker", "atp-bridge", "atp-probe", "prometheus", "alertmanager")
    ]
    kubernetes = yaml.safe_load((PROMETHEUS / "prometheus.kubernetes.yml").read_text())["scrape_configs"]
    relabelled = {rule["replacement"] for rule in kubernetes[0]["relabel_configs"] if rule.get("target_label") == "job"}
    assert relabelled == {"atp", "atp-worker", "atp-bridge"}
    assert [job["job_name"] for job in kubernetes] == ["atp", "atp-probe", "prometheus", "alertmanager"]


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_every_alert_says_what_how_bad_and_where_to_look(alert: Rule) -> None:
    assert alert.labels["severity"] in ("page", "ticket", "none")
    assert alert.labels["dashboard"] in DASHBOARDS
    assert alert.annotations["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{alert.name}.md"
    assert alert.annotations["dashboard_url"] == f"{{{{ $externalLabels.grafana }}}}/d/{alert.labels['dashboard']}"
    assert "$value" in alert.annotations["description"]
    assert alert.annotations["summary"]


def test_check_ins_are_the_two_that_nobody_is_woken_for() -> None:
    check_ins = {alert.name: alert.labels["check_in"] for alert in ALERTS if alert.labels["severity"] == "none"}
    assert check_ins == {"AtpWatchdog": "atp-watchdog", "AtpBackupFresh": "atp-backup"}
    assert [alert.name for alert in ALERTS if "check_in" in alert.labels] == list(check_ins)


def test_a_comment_above_every_alert_says_why_this_threshold() -> None:
    for file in RULES:
        lines = file.read_text().splitlines()
        bare = [line for above, line in pairwise(lines)
                if "- alert:" in line and not above.strip().startswith("#")]  # fmt: skip
        assert bare == [], file.name


def seconds(moment: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([smhd])", moment))


def histories(rule: Rule) -> list[list[bool]]:
    """For each group about that rule: whether it fires, in the order of time."""
    read = scraped(rule.expression)
    cases = [[case for case in group.get("alert_rule_test", []) if case["alertname"] == rule.name]
             for group in GROUPS if read & given(group)]  # fmt: skip
    in_time = [sorted(group, key=lambda case: seconds(case["eval_time"])) for group in cases if group]
    return [[any(of_rule(alert, rule) for alert in case["exp_alerts"]) for case in group] for group in in_time]


def given(group: dict[str, Any]) -> set[str]:
    """The metrics of a group of cases."""
    return {metric for row in group["input_series"] for metric in series(row["series"])}


def scraped(expression: str) -> set[str]:
    """The metrics that an expression reads, and those that are behind what it reads of recorded ones."""
    found: set[str] = set()
    for metric in series(expression):
        behind = [scraped(rule.expression) for rule in RECORDED if rule.name == metric]
        found |= set().union(*behind) if behind else {metric}
    return found


def of_rule(alert: dict[str, dict[str, str]], rule: Rule) -> bool:
    """Of the rules of one name, the labels that they set themselves tell whose alert it is."""
    return rule.labels.items() <= alert["exp_labels"].items()


def test_rules_of_one_name_are_told_apart_by_their_labels() -> None:
    pairs = [(one, other) for one in ALERTS for other in ALERTS if one is not other and one.name == other.name]
    assert [one.name for one, other in pairs if one.labels.items() <= other.labels.items()] == []


@pytest.mark.parametrize("alert", [alert for alert in ALERTS if alert.name != "AtpWatchdog"], ids=named)
def test_every_rule_has_cases_for_fires_not_yet_resolves_and_must_not_fire(alert: Rule) -> None:
    """Each about what the rule reads. AtpWatchdog reads nothing, and has none but that it fires."""
    found = histories(alert)
    # In one story: not yet, then it fires, then it does not.
    assert [story for story in found if story[0] is False and True in story and story[-1] is False] != []
    assert [story for story in found if not any(story)] != []


def test_every_severity_and_kind_of_an_alert_fires_in_some_case() -> None:
    fired = {
        (case["alertname"], alert["exp_labels"]["severity"], alert["exp_labels"].get("window"))
        for group in GROUPS
        for case in group.get("alert_rule_test", [])
        for alert in case["exp_alerts"]
    }
    assert fired == {(alert.name, alert.labels["severity"], alert.labels.get("window")) for alert in ALERTS}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert [file.stem for file in RUNBOOKS] == NAMES
    for file in RUNBOOKS:
        sections = re.findall(r"^#+ .*$", file.read_text(), re.MULTILINE)
        assert sections == [f"# {file.stem}", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]


def test_promtool_can_read_every_query_of_the_runbooks(tmp_path: Path) -> None:
    found = list(queries_of_runbooks())
    assert {name for name, _ in found} == set(NAMES)
    recorded = [{"record": f"query:{number}", "expr": query} for number, (_, query) in enumerate(found)]
    file = tmp_path / "queries.rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    succeed("promtool", "check", "rules", file)


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_queries_read_what_the_catalogue_has(name: str, query: str) -> None:
    known = known_series()
    read = {metric: labels for metric, labels in series(query).items() if metric}
    assert set(read) - set(known) == set()
    for metric, labels in read.items():
        assert labels - known[metric] - OF_TARGETS - {"le"} == set(), metric
    allowed = set().union(*(known[metric] for metric in read)) | OF_TARGETS | {"le", "__name__", "signal"}
    assert grouped(query) - allowed == set()


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_values_of_the_fleet_stand_under_max_only(name: str, query: str) -> None:
    """Every node exports them, so a sum would be as many times too much as there are nodes."""
    around = [(metric, words) for metric, _, words in selectors(query) if metric.startswith("atp_fleet_")]
    allowed = (("max",), ("max", "max_over_time"))
    assert [metric for metric, words in around if words[-1:] != allowed[0] and words[-2:] != allowed[1]] == []


def test_the_page_of_alerts_is_made_from_the_rules() -> None:
    assert (PROMETHEUS.parents[1] / "docs" / "alerts.md").read_text() == alert_page.as_markdown()
