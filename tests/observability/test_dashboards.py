"""The dashboards as they are committed: built from the Python, linted, typed, and of series that there are."""

import re
import subprocess
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import psycopg
import psycopg.sql
import pytest
import yaml

from observability.grafana.builder.boards import boards
from service.embedded.postgres import Postgres
from service.telemetry.catalogue import LIBRARY, all_series, entries
from service.wiring.docs import api_document
from tests.observability import schema_check
from tests.observability.boards import BOARDS, GRAFANA, Json, expressions, panels, targets
from tests.observability.linter import RULES
from tests.observability.promql import AGGREGATIONS, grouped, selectors, series
from tests.observability.queries import in_sql
from tests.observability.rules import alerts

UIDS = [
    *("atp-cache", "atp-http-slo", "atp-limits-keys", "atp-on-call", "atp-online-users", "atp-overview"),
    *("atp-resources", "atp-tasks-models", "atp-websockets"),
]
# Of the alert bridge, which has a registry of its own.
BRIDGE = {f"atp_bridge_{name}_total": frozenset({"outcome"}) for name in ("alerts", "check_ins")}
# Prometheus' own, and what the rules record.
RECORDED = {
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "about"}),  # about: what the table makes of the others
    **dict.fromkeys(("up", "scrape_samples_scraped", "scrape_duration_seconds"), frozenset()),
    **dict.fromkeys(("atp:slo_objective", "atp:slo_error_budget_remaining:ratio"), frozenset({"slo"})),
    **{f"atp:slo_error_ratio:rate{window}": frozenset({"slo"}) for window in ("1h", "6h", "3d")},
}
KNOWN = all_series() | BRIDGE | RECORDED
TITLED = [(uid, panel) for uid, board in BOARDS.items() for panel in panels(board)]
DOCS = GRAFANA.parents[1] / "docs" / "dashboards.md"


def test_the_committed_dashboards_are_what_the_python_writes() -> None:
    built = {board.uid: board.json() for board in boards()}
    assert {uid: (GRAFANA / "dashboards" / f"{uid}.json").read_text() for uid in UIDS} == built
    assert sorted(BOARDS) == UIDS


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_of_the_linter_is_broken_but_where_the_lint_file_says_why(rule: str) -> None:
    exclusions = yaml.safe_load((GRAFANA / "dashboards" / ".lint").read_text())["exclusions"].get(rule, {})
    excused = {(entry["dashboard"], entry["panel"]) for entry in exclusions.get("entries", [])}
    broken = {(board["title"], what) for board in BOARDS.values() for what in RULES[rule](board)}
    assert broken == excused


def test_the_linter_has_seventeen_rules_and_sees_what_breaks_them() -> None:
    assert len(RULES) == 17
    blank: Json = {"title": "x", "editable": True, "templating": {"list": []}}
    target = {"datasource": {"type": "prometheus"}, "expr": "sum(atp_tasks_total{}) + rate(atp_tasks_total{}[5m])"}
    blank["panels"] = [{"type": "graph", "datasource": {"uid": "x"}, "fieldConfig": {"defaults": {}}, "title": "t"}]
    blank["panels"] += [{**blank["panels"][0], "targets": [target]}]
    silent = {rule for rule, check in RULES.items() if not check(blank)}
    assert silent == {
        *("template-label-promql-rule", "template-on-time-change-reload-rule"),
        *("target-promql-rule", "target-logql-rule", "target-logql-auto-rule"),
    }


def test_ids_titles_and_references_are_one_each() -> None:
    assert [board["uid"] for board in BOARDS.values()] == UIDS
    for board in BOARDS.values():
        assert board["schemaVersion"] == 42
        for what in ("id", "title"):
            assert max(Counter(panel[what] for panel in board["panels"]).values()) == 1, (board["uid"], what)
        for panel in panels(board):
            references = [target["refId"] for target in panel.get("targets", [])]
            assert references == [*"ABCDEFGH"][: len(references)], panel["title"]


def test_every_panel_has_a_unit_and_thresholds_or_says_why_not_and_what_empty_means() -> None:
    for uid, panel in TITLED:
        assert len(panel["description"]) > 20, (uid, panel["title"])
        if panel["type"] in ("text", "logs"):
            continue
        defaults = panel["fieldConfig"]["defaults"]
        steps = defaults.get("thresholds", {}).get("steps", [])
        assert defaults["unit"], (uid, panel["title"])
        assert (len(steps) >= 2) != ("No threshold: " in panel["description"]), (uid, panel["title"])
        assert defaults["noValue"], (uid, panel["title"])


def test_a_heatmap_asks_for_buckets_and_a_table_for_rows() -> None:
    """Prometheus' buckets count those below them too; its datasource takes them apart for this format only."""
    kinds = {"heatmap": "heatmap", "table": "table"}
    asked = {
        (uid, panel["title"]): (target["format"], kinds.get(panel["type"], "time_series"))
        for uid, panel in TITLED
        for target in panel.get("targets", [])
        if target["datasource"]["type"] == "prometheus"
    }
    assert ("atp-http-slo", "Response times") in asked
    assert {where: formats for where, formats in asked.items() if formats[0] != formats[1]} == {}


@pytest.mark.parametrize("uid", UIDS)
def test_panels_do_not_overlap_and_stay_in_the_grid(uid: str) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in BOARDS[uid]["panels"]]
    assert [title for title, at in places if at["x"] + at["w"] > 24] == []
    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(places, 2)
        if all(a[at] < b[at] + b[by] and b[at] < a[at] + a[by] for at, by in (("x", "w"), ("y", "h")))
    ]
    assert overlapping == []


def test_every_query_is_of_series_that_there_are_with_labels_that_they_have() -> None:
    for where, expression in expressions():
        found = series(expression)
        assert found, where
        for name, labels in found.items():
            assert name in KNOWN, where
            assert labels <= KNOWN[name] | {"job", "instance"}, where
        assert grouped(expression) <= {"job", "instance"}.union(*(KNOWN[name] for name in found)), where


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    texts = [expression.replace("$job", ".+").replace("$instance", ".+") for _, expression in expressions()]
    rules = [{"record": "a:query", "expr": text, "labels": {"number": str(n)}} for n, text in enumerate(texts)]
    (tmp_path / "queries.rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(tmp_path / "queries.rules.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_values_of_the_fleet_are_only_ever_under_max() -> None:
    for where, expression in expressions():
        for name, _, around in selectors(expression):
            if name.startswith("atp_fleet_"):
                assert [word for word in around if word in AGGREGATIONS][-1] == "max", where


def test_every_series_of_the_catalogue_is_on_a_panel() -> None:
    shown = {name for where, expression in expressions() if ": annotation" not in where for name in series(expression)}
    wanted = [[*entry.series] for entry in entries()] + [[name] for name in (*LIBRARY, *BRIDGE)]
    assert [names[0] for names in wanted if shown.isdisjoint(names)] == []


def test_all_share_variables_annotations_and_links() -> None:
    for board in BOARDS.values():
        assert [v["name"] for v in board["templating"]["list"]][:3] == ["datasource", "job", "instance"]
        assert [a["name"] for a in board["annotations"]["list"]] == ["Deploys", "Broadcasts", "Firing alerts"]
        assert [(a["tags"], a["keepTime"], a["includeVars"]) for a in board["links"]] == [(["atp"], True, True)]
        assert board["tags"] == ["atp"]


def links() -> list[str]:
    text = [str(panel.get("options", {}).get("content", "")) for _, panel in TITLED]
    urls = [
        link["url"] for _, panel in TITLED for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", [])
    ]
    return [*urls, *re.findall(r"\]\(([^)]*)\)", "".join(text))]


def test_links_lead_to_dashboards_and_operations_that_there_are() -> None:
    operations = {operation["operationId"] for path in api_document()["paths"].values() for operation in path.values()}
    dashboards = {match for url in links() for match in re.findall(r"^/d/([^?]+)", url)}
    acts = {match for url in links() for match in re.findall(r"^\$\{api\}/docs#/admin/(.+)$", url)}
    assert dashboards <= set(UIDS)
    assert {"post_admin_broadcast", "post_admin_users_user_id_disconnect", "post_admin_drain"} <= acts <= operations
    assert all("atp-tempo" in url or "atp-loki" in url for url in links() if url.startswith("/explore"))


def provisioned(file: str) -> Json:
    loaded: Json = yaml.safe_load((GRAFANA / "provisioning" / file).read_text())
    return loaded


def test_what_is_provisioned_is_what_the_dashboards_use() -> None:
    sources = {s["uid"]: s for s in provisioned("datasources/datasources.yaml")["datasources"]}
    assert sorted(sources) == ["atp-alertmanager", "atp-loki", "atp-postgresql", "atp-prometheus", "atp-tempo"]
    used = {(t["datasource"]["uid"], t["datasource"]["type"]) for _, p in TITLED for t in p.get("targets", [])}
    assert used == {("${datasource}", "prometheus")} | {(u, sources[u]["type"]) for u in ("atp-loki", "atp-postgresql")}
    assert sources["atp-prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]["datasourceUid"] == "atp-tempo"
    assert sources["atp-loki"]["jsonData"]["derivedFields"][0]["datasourceUid"] == "atp-tempo"
    assert sources["atp-tempo"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "atp-loki"
    assert sources["atp-postgresql"]["secureJsonData"] == {"password": "${ATP_GRAFANA_DB_PASSWORD}"}
    assert provisioned("dashboards/dashboards.yaml")["providers"][0]["allowUiUpdates"] is False


def test_the_role_of_grafana_can_run_every_query_and_read_nothing_else(
    postgres_server: Postgres, database_url: str
) -> None:
    role = (GRAFANA / "postgresql-role.sql").read_text().replace(":'password'", "'secret'")
    with psycopg.connect(postgres_server.admin_dsn, dbname=database_url.rpartition("/")[2]) as connection:
        connection.execute(role)  # roles are the whole server's, so this is rolled back
        connection.execute("SET LOCAL ROLE atp_grafana")
        for _, sql in targets("grafana-postgresql-datasource"):
            assert "LIMIT 20" in sql or "coalesce(sum" in sql
            connection.execute(in_sql(sql, time.time() - 900).encode())
        for table in ("users", "api_usage", "admin_audit", "api_keys"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(sql_of_all(table))
        connection.rollback()


def sql_of_all(table: str) -> psycopg.sql.Composed:
    return psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(table))


def test_tsc_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    literals = {uid: (GRAFANA / "dashboards" / f"{uid}.json").read_text() for uid in UIDS}
    assert schema_check.complaints(literals, tmp_path) == ""


def test_tsc_would_find_a_wrong_type_and_an_unknown_name(tmp_path: Path) -> None:
    whole = (GRAFANA / "dashboards" / "atp-cache.json").read_text()
    found = schema_check.complaints(
        {"type": whole.replace('"refresh": "30s"', '"refresh": 30'), "name": whole.replace('"noValue"', '"novalue"')},
        tmp_path,
    )
    assert "type.schema-12.ts" in found
    assert "name.schema-13.ts" in found


GUIDE = {
    "Usuarios en línea (actual)",
    "Usuarios en línea (pico)",
    "Sesiones activas",
    "Uso de CPU",
    "Uso de memoria",
    "Conexiones WebSocket",
    "Distribución por dispositivo",
    "Tiempo de respuesta de API",
    "Latencia de WebSocket",
    "Tasa de errores",
    "Conexiones de base de datos",
    "Redis memory",
    "Requests por minuto",
    "Usuarios bloqueados",
    "API keys más activas",
}


def coverage() -> list[list[str]]:
    """The rows of the page's table of what the guide asks for: item, series, panel, alerts."""
    rows = [line.strip("|").split("|") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() in GUIDE]


def test_all_that_the_guide_asks_for_is_on_the_administrators_dashboards() -> None:
    assert {row[0] for row in coverage()} == GUIDE
    for item, names, place, _ in coverage():
        board, title = place.split(": ")
        uid = {"Overview": "atp-overview", "Online users": "atp-online-users"}[board]
        panel = next(panel for panel in panels(BOARDS[uid]) if panel["title"] == title)
        shown = {name for target in panel["targets"] for name in series(target["expr"])}
        assert set(re.findall(r"`(\w+)`", names)) <= shown, item


def test_the_alerts_that_the_page_names_exist() -> None:
    there = {rule.name for rule in alerts()}
    named = set(re.findall(r"\bAtp[A-Z]\w+", DOCS.read_text() + "".join(panel["description"] for _, panel in TITLED)))
    assert named <= there
