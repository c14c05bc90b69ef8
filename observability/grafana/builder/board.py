"""A dashboard: what all nine share (variables, links, annotations), and the places of its panels."""

import json
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from observability.grafana.builder.panels import Panel
from observability.grafana.builder.query import PROMETHEUS, fleet, select

API_URL = "http://localhost:8000"
RUNBOOKS_URL = f"{API_URL}/runbooks"  # as the label `runbooks` in prometheus.yml, where the alerts' own links begin
TAG = "atp"
COLUMNS = 24


class Board:
    """Rows of panels from left to right; a row's panels have one height, and their widths add up to 24 at most."""

    def __init__(
        self, uid: str, title: str, about: str, *, span: str = "now-3h", acts: bool = False, alerts: bool = False
    ) -> None:
        """`acts`: it has links to the admin API, so it asks where that is; `alerts`: to the runbooks."""
        self.uid, self.title = uid, title
        self.api_url, self.runbooks_url = API_URL, RUNBOOKS_URL
        self._about, self._span, self._acts, self._alerts = about, span, acts, alerts
        self._rows: list[tuple[str, list[list[Panel]]]] = []

    def row(self, title: str, *lines: list[Panel]) -> None:
        self._rows.append((title, list(lines)))

    def json(self) -> str:
        text: str = JSONEncoder(sort_keys=True, indent=2).encode(self._built())
        document = json.loads(text)
        for variable in document["templating"]["list"]:  # the SDK writes those of an interval on every kind
            for name in ("auto", "auto_count", "auto_min"):
                del variable[name]
        return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def _built(self) -> model.Dashboard:
        built = dashboard.Dashboard(self.title).uid(self.uid).description(self._about).tags([TAG]).readonly()
        built.time(self._span, "now").refresh("30s").tooltip(model.DashboardCursorSync.CROSSHAIR).timezone("browser")
        built.link(
            dashboard.DashboardLink("ATP")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        for variable in (*variables(), *self._addresses()):
            built.with_variable(variable)
        for annotation in annotations():
            built.annotation(annotation)
        self._place(built)
        return built.build()

    def _addresses(self) -> Iterator[dashboard.TextBoxVariable]:
        if self._acts:
            about = "Where your browser reaches the API; the links to its operations begin with it"
            yield _address("api", "API", about, self.api_url)
        if self._alerts:
            about = "Where your browser finds the runbooks, one file for each alert"
            yield _address("runbooks", "Runbooks", about, self.runbooks_url).hide(model.VariableHide.HIDE_VARIABLE)

    def _place(self, built: dashboard.Dashboard) -> None:
        id_, y = 0, 0
        for title, lines in self._rows:
            id_ += 1
            built.with_row(dashboard.Row(title).id(id_).grid_pos(model.GridPos(x=0, y=y, w=COLUMNS, h=1)))
            y += 1
            for line in lines:
                x, height = 0, max(panel.height for panel in line)
                for panel in line:
                    id_ += 1
                    built.with_panel(_placed(panel.builder, id_, x, y, panel.width, height))
                    x += panel.width
                y += height


def _address(name: str, label: str, about: str, url: str) -> dashboard.TextBoxVariable:
    current = model.VariableOption(text=url, value=url, selected=True)
    return dashboard.TextBoxVariable(name).label(label).description(about).default_value(url).current(current)


def _placed(builder: Any, id_: int, x: int, y: int, width: int, height: int) -> Any:
    return builder.id(id_).grid_pos(model.GridPos(x=x, y=y, w=width, h=height))


def variables() -> list[Any]:
    """$datasource, then $job and $instance, which every query selects by."""
    return [
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(model.VariableOption(text="Prometheus", value="atp-prometheus", selected=True)),
        _query_variable("job", "label_values(atp_build_info, job)"),
        _query_variable("instance", 'label_values(atp_build_info{job=~"$job"}, instance)'),
    ]


def _query_variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def annotations() -> list[dashboard.AnnotationQuery]:
    build = select("atp_build_info")
    new = f"count by (version, revision) ({build})"
    return [
        # A version that was not there five minutes ago.
        _annotation("Deploys", "blue", f"{new} unless {new.replace('})', '} offset 5m)')}")
        .title_format("Deployed {{version}}")
        .text_format("revision {{revision}}"),
        # Grafana takes the value as the time in ms; 0 is never.
        _annotation("Broadcasts", "purple", f"{fleet('last_broadcast_timestamp_seconds')} * 1000 > 0")
        .use_value_for_time(True)
        .title_format("Broadcast"),
        _annotation("Firing alerts", "red", 'ALERTS{alertstate="firing", severity=~"page|ticket"}')
        .title_format("{{alertname}}")
        .text_format("{{instance}}")
        .tag_keys("severity"),
    ]


def _annotation(name: str, colour: str, expr: str) -> dashboard.AnnotationQuery:
    target = prometheus.Dataquery().ref_id("Anno").expr(expr).interval("30s")
    return dashboard.AnnotationQuery().name(name).datasource(PROMETHEUS).enable(True).icon_color(colour).target(target)
