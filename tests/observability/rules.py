"""Prometheus's files as the tests read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROMETHEUS = Path(__file__).parents[2] / "observability" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.rules.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
RUNBOOKS = sorted((PROMETHEUS / "runbooks").glob("*.md"))


@dataclass(frozen=True)
class Rule:
    name: str  # of the alert, or of the recorded series
    alert: bool
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]
    lasting: str = ""  # how long the expression must hold, as Prometheus writes it


def rules() -> Iterator[Rule]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                labels, annotations = rule.get("labels", {}), rule.get("annotations", {})
                yield Rule(name, "alert" in rule, rule["expr"], labels, annotations, rule.get("for", ""))


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.alert]


def groups_of_cases() -> Iterator[dict[str, Any]]:
    for file in CASES:
        yield from yaml.safe_load(file.read_text())["tests"]


def queries_of_runbooks() -> Iterator[tuple[str, str]]:
    """File and line of each ```promql block; a line is an expression."""
    for file in RUNBOOKS:
        for block in file.read_text().split("```promql\n")[1:]:
            yield from ((file.stem, line) for line in block.split("\n```")[0].splitlines())
