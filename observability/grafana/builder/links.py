"""Links: from a point to the instance, to its traces, to its logs. All keep the time and the variables."""

import json
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard

TIME = "${__url_time_range}"
VARIABLES = "${datasource:queryparam}&${job:queryparam}"
# Grafana fills these in, so their braces stay as they are.
KEPT = "${}:_"


def _link(title: str, url: str, *, new_tab: bool = False) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).url(url).target_blank(new_tab)


def to_board(uid: str, title: str) -> dashboard.DashboardLink:
    return _link(title, f"/d/{uid}?{TIME}&{VARIABLES}&${{instance:queryparam}}")


def to_instance() -> dashboard.DashboardLink:
    """To the resources of the instance that the point is of."""
    return _link(
        "Resources of ${__field.labels.instance}",
        f"/d/atp-resources?{TIME}&{VARIABLES}&var-instance=${{__field.labels.instance}}",
    )


def to_runbook(alert: str) -> dashboard.DashboardLink:
    return _link(f"Runbook of {alert}", f"${{runbooks}}/{alert}.md", new_tab=True)


def _explore(title: str, uid: str, kind: str, query: dict[str, str]) -> dashboard.DashboardLink:
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": uid}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    return _link(title, f"/explore?schemaVersion=1&panes={quote(json.dumps({'atp': pane}), safe=KEPT)}", new_tab=True)


def to_traces(traceql: str, title: str = "Traces") -> dashboard.DashboardLink:
    return _explore(title, "atp-tempo", "tempo", {"queryType": "traceql", "query": traceql})


def to_logs(logql: str, title: str = "Logs") -> dashboard.DashboardLink:
    return _explore(title, "atp-loki", "loki", {"queryType": "range", "expr": logql})


def on_request() -> list[dashboard.DashboardLink]:
    """From a line of requests: HTTP & SLO, slow traces, lines of errors."""
    return [
        to_board("atp-http-slo", "HTTP & SLO"),
        to_traces("{ kind = server && duration > 500ms }", "Traces over 0.5 s"),
        to_logs('{job=~"atp.*", level="error"} | json', "Logs of errors"),
    ]


def on_instance() -> list[dashboard.DashboardLink]:
    return [to_instance(), *on_request()]
