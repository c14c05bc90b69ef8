"""The committed dashboards as the tests read them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "observability" / "grafana"
Json = dict[str, Any]
BOARDS: dict[str, Json] = {
    file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))
}


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Query:
    """One target of one panel."""

    board: str
    panel_id: int
    panel: str
    ref: str
    kind: str  # of the datasource
    text: str
    instant: bool

    @property
    def name(self) -> str:
        return f"{self.board} / {self.panel} / {self.ref}"


def queries(board: Json) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            text = target.get("expr") or target["rawSql"]
            about = (board["uid"], panel["id"], panel["title"], target["refId"], target["datasource"]["type"])
            yield Query(*about, text, bool(target.get("instant")))


def all_queries() -> list[Query]:
    return [query for board in BOARDS.values() for query in queries(board)]


def targets(kind: str) -> Iterator[tuple[str, str]]:
    """Every query of panels to a datasource of this kind: where it stands, and its text."""
    return ((query.name, query.text) for query in all_queries() if query.kind == kind)


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
