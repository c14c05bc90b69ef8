"""The 17 rules of grafana/dashboard-linter over a dashboard's JSON, by their names; each gives what breaks it.

A complaint is the panel's title, or the variable's name. Exclusions are the linter's own: a `.lint` file.
"""

import re
from collections.abc import Callable, Iterator

from tests.observability.boards import Json, panels
from tests.observability.promql import tokens

QUERYING = {"stat", "singlestat", "graph", "table", "timeseries", "gauge"}
UNITS = {"none", "short", "percent", "percentunit", "currencyUSD", "bytes", "Bps", "s", "ops", "reqps", "cps", "reqpm"}
# A series of ATP's, of its library's, of the scrape's or of a rule's, and its matchers.
SELECTOR = r"\b(?:atp:[a-z0-9_:]+|ALERTS|(?:atp|http|db|gen|process|python|scrape|up)[a-z0-9_]*)\b(\{[^}]*\})?"
MATCHER = {name: f'{name}=~"${name}"' for name in ("job", "instance")}


def variables(board: Json, kind: str) -> list[Json]:
    return [variable for variable in board["templating"]["list"] if variable["type"] == kind]


def queries(board: Json, kind: str) -> Iterator[tuple[str, str]]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == kind:
                yield panel["title"], target["expr"]


def template_datasource(board: Json) -> list[str]:
    found = [(v["name"], v["label"], v["query"]) for v in variables(board, "datasource")]
    return [] if found == [("datasource", "Data source", "prometheus")] else ["datasource"]


def template(name: str) -> Callable[[Json], list[str]]:
    def check(board: Json) -> list[str]:
        found = [v for v in variables(board, "query") if v["name"] == name]
        right = found and (
            found[0]["datasource"]["uid"] == "${datasource}"
            and found[0]["label"] == name.capitalize()
            and found[0]["multi"]
            and found[0]["allValue"] == ".+"
        )
        return [] if right else [name]

    return check


def template_label_promql(board: Json) -> list[str]:
    return [v["name"] for v in variables(board, "query") if not re.fullmatch(r"label_values\(.+, \w+\)", v["query"])]


def template_on_time_change_reload(board: Json) -> list[str]:
    return [v["name"] for v in variables(board, "query") if v["refresh"] != 2]


def panel_datasource(board: Json) -> list[str]:
    kinds = {"singlestat", "graph", "table", "timeseries"}
    return [p["title"] for p in panels(board) if p["type"] in kinds and p["datasource"]["uid"] != "${datasource}"]


def panel_title_description(board: Json) -> list[str]:
    return [p.get("title", "?") for p in panels(board) if not (p.get("title") and p.get("description"))]


def panel_units(board: Json) -> list[str]:
    asked = [p for p in panels(board) if p["type"] in QUERYING]
    return [p["title"] for p in asked if p["fieldConfig"]["defaults"].get("unit") not in UNITS]


def panel_no_targets(board: Json) -> list[str]:
    return [p["title"] for p in panels(board) if p["type"] in QUERYING and not p.get("targets")]


def target_logql(board: Json) -> list[str]:
    """Not a parser: selectors, and brackets that close."""
    whole = re.compile(r"[^{}]*\{(\w+(=|!=|=~|!~)\"[^\"]*\"(, )?)+\}.*", re.DOTALL)
    return [title for title, expr in queries(board, "loki") if not whole.fullmatch(expr) or not balanced(expr)]


def balanced(expr: str) -> bool:
    bare = re.sub(r'"[^"]*"', "", expr)
    return all(bare.count(opening) == bare.count(closing) for opening, closing in ("()", "{}", "[]"))


def target_logql_auto(board: Json) -> list[str]:
    return [title for title, expr in queries(board, "loki") if re.search(r"\[(?!\$__auto\])", expr)]


def target_promql(board: Json) -> list[str]:
    """Tokens of PromQL whose brackets close; Prometheus itself evaluates them in the end-to-end test."""
    return [title for title, expr in queries(board, "prometheus") if not tokens(expr) or not balanced(expr)]


def target_rate_interval(board: Json) -> list[str]:
    wrong = re.compile(r"\bi?rate\([^()]*\[(?!\$__rate_interval\])")
    return [title for title, expr in queries(board, "prometheus") if wrong.search(inner(expr))]


def target_matcher(name: str) -> Callable[[Json], list[str]]:
    def check(board: Json) -> list[str]:
        found = []
        for title, expr in queries(board, "prometheus"):
            bare = re.findall(
                r"\b(?:atp:[a-z0-9_:]+|ALERTS|(?:atp|http|db|gen|process|python|up)[a-z0-9_]*)\b(\{[^}]*\})?",
                inner(expr),
            )
            if any(MATCHER[name] not in selector for selector in bare):
                found.append(title)
        return found

    return check


def inner(expr: str) -> str:
    """Without the label lists of by, on and group_left, and without the values of matchers but `$…`."""
    return re.sub(
        r'"([^"]*)"',
        lambda text: text[0] if text[1].startswith("$") else '""',
        re.sub(r"\b(by|on|group_left|without|ignoring) \([^)]*\)", "", expr),
    )


def target_counter_agg(board: Json) -> list[str]:
    counter = re.compile(r"(?<!rate\()(?<!increase\()\b\w+_total\{")
    return [title for title, expr in queries(board, "prometheus") if counter.search(expr)]


def uneditable(board: Json) -> list[str]:
    return [board["title"]] if board["editable"] else []


RULES: dict[str, Callable[[Json], list[str]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template("job"),
    "template-instance-rule": template("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_matcher("job"),
    "target-instance-rule": target_matcher("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}
