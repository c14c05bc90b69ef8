"""What Prometheus scrapes of pods, as its relabelling would have it; Debian builds it without this discovery."""

import re
from typing import Any

import pytest
import yaml

from tests.observability.rules import PROMETHEUS

POD = "__meta_kubernetes_pod_"


def relabelled(rules: list[dict[str, Any]], target: dict[str, str]) -> dict[str, str] | None:
    """Of the labels, those that are set by `replacement`; None when the target is dropped.

    Source: Prometheus's documentation, "relabel_config". Regular expressions match the whole.
    """
    found: dict[str, str] = {}
    for rule in rules:
        value = rule.get("separator", ";").join(target.get(name, "") for name in rule["source_labels"])
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        action = rule.get("action", "replace")
        if (action, bool(match)) in (("keep", False), ("drop", True)):
            return None
        if action == "replace" and match:
            found[rule["target_label"]] = rule.get("replacement", value)
    return found


@pytest.mark.parametrize(
    ("port", "phase", "component", "job"),
    [
        ("private", "Running", "node", "atp"),
        ("private-1", "Running", "node", "atp"),
        ("private-12", "Running", "node", "atp"),
        ("private", "Running", "worker", "atp-worker"),
        ("private", "Running", "bridge", "atp-bridge"),
        ("private", "Unknown", "node", "atp"),
    ],
)
def test_every_process_of_a_pod_that_runs_is_scraped(port: str, phase: str, component: str, job: str) -> None:
    """`atp serve --processes N` has N private ports; a node whose machine is silent is missing, not over."""
    assert scraped(port, phase, component) == {"job": job, "instance": "atp-1:9001"}


@pytest.mark.parametrize(
    ("port", "phase", "component"),
    [
        ("private", "Pending", "node"),
        ("private", "Succeeded", "node"),
        ("private-1", "Failed", "worker"),
        ("private", "Running", "migrate"),
        ("public", "Running", "node"),
        ("private-", "Running", "node"),
        ("private-x", "Running", "node"),
        ("privateer", "Running", "node"),
    ],
)
def test_what_has_not_begun_is_over_or_is_no_process_is_not(port: str, phase: str, component: str) -> None:
    assert scraped(port, phase, component) is None


def test_pods_of_others_are_not_scraped() -> None:
    assert scraped("private", "Running", "node", name="other") is None


def scraped(port: str, phase: str, component: str, name: str = "atp") -> dict[str, str] | None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.kubernetes.yml").read_text())
    target = {
        f"{POD}label_app_kubernetes_io_name": name,
        f"{POD}label_app_kubernetes_io_component": component,
        f"{POD}container_port_name": port,
        f"{POD}container_port_number": "9001",
        f"{POD}name": "atp-1",
        f"{POD}phase": phase,
    }
    return relabelled(config["scrape_configs"][0]["relabel_configs"], target)
