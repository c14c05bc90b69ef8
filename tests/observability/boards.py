"""The committed dashboards as the tests read them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "observability" / "grafana"
Json = dict[str, Any]
BOARDS: dict[str, Json] = {
    file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))
}


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(kind: str) -> Iterator[tuple[str, str]]:
    """Every query of panels to a datasource of this kind: where it stands, and its text."""
    for uid, board in BOARDS.items():
        for panel in panels(board):
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == kind:
                    yield f"{uid}: {panel['title']} {target['refId']}", target.get("expr") or target["rawSql"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL, of panels, variables and annotations, with durations for Grafana's variables of them."""
    for where, expression in targets("prometheus"):
        yield where, expression.replace("$__rate_interval", "1m").replace("$__range", "3h")
    for uid, board in BOARDS.items():
        for annotation in board["annotations"]["list"]:
            yield f"{uid}: annotation {annotation['name']}", annotation["target"]["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"].removeprefix("label_values(").removesuffix(")")
                yield f"{uid}: variable {variable['name']}", query.rpartition(",")[0]
