"""Panels that stand on more than one dashboard, so that they read the same everywhere."""

from observability.grafana.builder import limits
from observability.grafana.builder.limits import TRAFFIC, NoLimits, above, below
from observability.grafana.builder.links import on_instance, to_board, to_runbook
from observability.grafana.builder.panels import Panel, bars, figure, lines, pie, prose, rows
from observability.grafana.builder.query import Q, counted, fleet, held, label_join, quantile, share

REQUESTS = "http_server_request_duration_seconds"
FIVE_XX = 'http_response_status_code=~"5.."'
TOTAL = counted(f"{REQUESTS}_count")
# No series of a status exists before its first answer, so the errors are filled with 0.
ERRORS = f"({counted(f'{REQUESTS}_count', FIVE_XX)} or 0 * {TOTAL})"
# The labels of an alert that tell it from another of its name; together they are a column, since each has one or two.
ALERTS_ARE_ABOUT = (
    *("slo", "dependency", "task", "queue", "policy", "cache", "pool", "provider", "model", "metric", "signal"),
)
SLOS = "availability, latency, ws_delivery, presence_freshness"


def error_budget(width: int = 12) -> Panel:
    return figure(
        "Error budget left",
        f"What is left of 30 days' errors, by SLO ({SLOS}). 100 %: none used; under 0: overspent.",
        "percentunit",
        below(0, 0.25),
        Q("max by (slo) (atp:slo_error_budget_remaining:ratio)", "{{slo}}"),
        links=[to_board("atp-http-slo", "HTTP & SLO")],
        width=width,
    )


def firing_count() -> Panel:
    return figure(
        "Alerts firing",
        "Alerts of severity page or ticket that fire now.",
        "short",
        limits.ANY,
        Q('count(ALERTS{alertstate="firing", severity=~"page|ticket"}) or vector(0)', "firing"),
        links=[to_board("atp-on-call", "On-call")],
        empty="none",
    )


def firing_alerts(width: int = 12) -> Panel:
    found = label_join('ALERTS{severity=~"page|ticket"}', "about", *ALERTS_ARE_ABOUT)
    table = rows(
        "Firing alerts",
        "What fires or is about to, and what it is about: an SLO, a dependency, a task… A click opens the runbook.",
        "none",
        NoLimits("its colour is its severity"),
        Q(f"max by (alertname, alertstate, severity, about, instance) ({found})"),
        columns={
            "alertname": "Alert",
            "alertstate": "State",
            "severity": "Severity",
            "about": "About",
            "instance": "Instance",
        },
        empty="no alerts",
        width=width,
    )
    table.builder.data_links([to_runbook("${__data.fields.Alert}")])
    return table


def online_now() -> Panel:
    return figure(
        "Online users",
        "Users with a session now, over all nodes, each counted once.",
        "short",
        TRAFFIC,
        Q(fleet("online_users"), "online"),
        links=[to_board("atp-online-users", "Online users")],
        empty="no snapshot",
    )


def online_peak() -> Panel:
    return figure(
        "Peak of online users",
        "The most users at a time: of this day, and ever.",
        "short",
        TRAFFIC,
        Q(fleet("online_users_peak", by="window"), "{{window}}"),
        width=4,
        empty="no snapshot",
    )


def sessions_now() -> Panel:
    return figure(
        "Active sessions",
        "Sessions now: sockets and REST sessions.",
        "short",
        TRAFFIC,
        Q(f"sum({fleet('sessions', by='device')})", "sessions"),
        empty="no snapshot",
    )


def sessions_by_device() -> Panel:
    return pie(
        "Sessions by device",
        "Sessions now, by the device's class.",
        "short",
        TRAFFIC,
        Q(fleet("sessions", by="device"), "{{device}}"),
    )


def online_over_time(width: int = 8) -> Panel:
    return lines(
        "Online users over time",
        "Users online, and the day's peak.",
        "short",
        TRAFFIC,
        Q(fleet("online_users"), "online"),
        Q(fleet("online_users_peak", 'window="day"'), "day's peak"),
        empty="no snapshot",
        width=width,
    )


def blocked_now(width: int = 4) -> Panel:
    return figure(
        "Blocked",
        "Blocks in force, of keys, users and addresses.",
        "short",
        NoLimits("a block is an administrator's decision"),
        Q(fleet("blocked_users", by="reason"), "{{reason}}"),
        width=width,
        empty="no snapshot",
    )


def top_keys(width: int = 8) -> Panel:
    return bars(
        "Most active API keys",
        "Requests of the trailing hour: the 20 busiest keys by their public prefix, and all others together.",
        "short",
        TRAFFIC,
        Q(f"sort_desc({fleet('top_api_key_requests', by='key_id')})", "{{key_id}}"),
        empty="no requests in the last hour",
        width=width,
    )


def requests_per_minute(width: int = 8) -> Panel:
    return lines(
        "Requests a minute",
        "Answered requests a minute, by status.",
        "reqpm",
        TRAFFIC,
        Q(f"60 * {counted(f'{REQUESTS}_count', by='http_response_status_code')}", "{{http_response_status_code}}"),
        links=on_instance()[1:],
        width=width,
        stacked=True,
    )


def error_share(width: int = 8) -> Panel:
    return lines(
        "Errors",
        "5xx answers of all; the SLO allows 0.1 % over 30 days.",
        "percentunit",
        above(limits.AVAILABILITY_ERRORS),
        Q(share(ERRORS, TOTAL), "5xx"),
        links=on_instance()[1:],
        empty="no requests",
        width=width,
    )


def latency(width: int = 8) -> Panel:
    parts = [Q(quantile(q, REQUESTS), f"p{q * 100:.0f}", exemplars=q == 0.99) for q in (0.5, 0.95, 0.99)]
    return lines(
        "Response time",
        "From a request's head to the answer's last byte. The dots are traces. SLO: 99 % under 0.5 s, without the "
        "routes whose time is the model's or the stream's own; here are all.",
        "s",
        above(limits.LATENCY_SLO_S),
        *parts,
        links=on_instance()[1:],
        empty="no requests",
        width=width,
    )


def delivery_lag(width: int = 8) -> Panel:
    lag = "atp_ws_delivery_lag_seconds"
    return lines(
        "WebSocket delivery lag",
        "From a message's place on the bus to its sockets' queues, by kind. SLO: 99.5 % of the pushes within 0.5 s.",
        "s",
        above(limits.LATENCY_SLO_S),
        Q(quantile(0.995, lag, 'kind="push"'), "push p99.5", exemplars=True),
        Q(quantile(0.95, lag, by="kind"), "{{kind}} p95"),
        links=[to_board("atp-websockets", "WebSockets")],
        empty="nothing was delivered",
        width=width,
    )


def sockets_by_device(width: int = 8) -> Panel:
    return lines(
        "WebSocket connections",
        "Open sockets by device.",
        "short",
        TRAFFIC,
        Q(held("atp_ws_connections", by="device"), "{{device}}"),
        links=[to_board("atp-websockets", "WebSockets")],
        width=width,
        stacked=True,
    )


def unhandled(width: int = 8) -> Panel:
    return lines(
        "Unforeseen exceptions",
        "Exceptions nobody foresaw, by component; each is in Sentry with its trace.",
        "cps",
        limits.ANY_RATE,
        Q(counted("atp_unhandled_exceptions_total", by="component"), "{{component}}"),
        links=on_instance()[1:],
        empty="no errors",
        width=width,
    )


def telemetry_lost(width: int = 8) -> Panel:
    return lines(
        "Telemetry lost",
        "Logs, spans and errors dropped because their sink was slow; alerts and check-ins that Sentry did not take; "
        "Alertmanager's notifications that the bridge refused. "
        "AtpTelemetryLoss fires when it lasts.",
        "cps",
        limits.ANY_RATE,
        Q(counted("atp_telemetry_dropped_total", by="signal"), "{{signal}}"),
        Q(counted("atp_bridge_alerts_total", 'outcome=~"failed|refused"'), "alerts"),
        Q(counted("atp_bridge_check_ins_total", 'outcome="failed"'), "check-ins"),
        Q(counted("atp_bridge_refused_notifications_total"), "notifications"),
        empty="nothing lost",
        width=width,
    )


def acts(width: int = 12) -> Panel:
    """Grafana's own panel actions cannot send a key that is each administrator's own: see docs/dashboards.md."""
    operation = "${api}/docs#/admin"
    return prose(
        "Act",
        "Links to the operations of the admin API. You authorize there with your own key; each act is audited.",
        "\n".join(
            [
                f"- [**Broadcast** a message]({operation}/post_admin_broadcast) to everybody, or to users or devices",
                f"- [Who is online]({operation}/get_admin_users_online), "
                f"[**disconnect** or block a user]({operation}/post_admin_users_user_id_disconnect)",
                f"- [**Block** a key, user or address]({operation}/post_admin_blocks), "
                f"[blocks in force]({operation}/get_admin_blocks)",
                f"- [The nodes' names]({operation}/get_admin_stats_system), "
                f"[**drain** a node]({operation}/post_admin_drain), [take it back]({operation}/delete_admin_drain)",
                f"- [Failed tasks]({operation}/get_admin_tasks), "
                f"[try one again]({operation}/post_admin_tasks_task_id_retry)",
                "",
                "Press *Authorize* there and give your key with the scope `admin`; no key is kept in Grafana.",
            ]
        ),
        width=width,
    )
