"""For whoever was woken: what fires and since when, whether the alarm itself works, backups, errors, their lines."""

from observability.grafana.builder import limits, saturation, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import CONTEXT, TRAFFIC, NoLimits, above
from observability.grafana.builder.links import to_logs
from observability.grafana.builder.panels import Panel, figure, lines, log_lines, rows, states
from observability.grafana.builder.query import LogQ, Q, counted, fleet, select

UNDELIVERED = 'outcome=~"failed|refused"'


def board() -> Board:
    about = "What fires, what is down, whether the alarm works; the lines."
    it = Board("atp-on-call", "ATP · On-call", about, acts=True, alerts=True)
    it.row("Now", [shared.firing_count(), shared.error_budget(12), _watchdog(), _backup(), _sent()])
    it.row("Alerts", [shared.firing_alerts(), _alert_states()])
    it.row("What is down", [_targets(), saturation.dependencies()], [saturation.degraded(), shared.acts()])
    it.row("Faults", [shared.error_share(), shared.unhandled(), _lines_by_level()])
    it.row("The alarm itself", [_bridge(), _check_ins()], [shared.telemetry_lost(12), _lost()])
    it.row("Lines", [_errors()], [_warnings()])
    return it


def _watchdog() -> Panel:
    return figure(
        "Alarm chain",
        "AtpWatchdog always fires; while it does not, Prometheus does not evaluate the rules and nobody is called.",
        "none",
        limits.DOWN,
        Q('count(ALERTS{alertname="AtpWatchdog", alertstate="firing"}) or vector(0)', "watchdog"),
        values={"1": "works", "0": "silent"},
    )


def _backup() -> Panel:
    return figure(
        "Since the last backup",
        "AtpBackupStale fires after 26 hours.",
        "s",
        above(limits.BACKUP_STALE_S, 25 * 3600),
        Q(f"time() - ({fleet('last_backup_timestamp_seconds')} > 0)", "backup"),
        empty="never",
    )


def _sent() -> Panel:
    return figure(
        "Alerts not delivered",
        "Alerts that the bridge could not give to Sentry in this time range.",
        "short",
        limits.ANY,
        Q(
            f"sum(increase({select('atp_bridge_alerts_total', UNDELIVERED)}[$__range])) or vector(0)",
            "not delivered",
        ),
        empty="none",
    )


def _alert_states() -> Panel:
    return states(
        "Alerts over time",
        "When each alert fired; gaps are quiet.",
        limits.ANY,
        Q('max by (alertname) (ALERTS{alertstate="firing", severity=~"page|ticket"})', "{{alertname}}"),
        values={"1": "firing"},
        empty="no alerts",
    )


def _targets() -> Panel:
    return states(
        "Targets",
        "Whether Prometheus reaches each instance.",
        limits.DOWN,
        Q(f"max by (job, instance) ({select('up')})", "{{job}} {{instance}}"),
        values={"1": "up", "0": "down"},
    )


def _lines_by_level() -> Panel:
    return lines(
        "Log lines",
        "Lines a second, by level.",
        "cps",
        CONTEXT,
        LogQ('sum by (level) (rate({job=~"$job"} [$__auto]))', "{{level}}"),
        links=[to_logs('{job=~"atp.*"} | json', "All lines")],
        empty="no lines",
    )


def _bridge() -> Panel:
    return lines(
        "Alerts to Sentry",
        "What became of Alertmanager's alerts: sent; failed, to be tried again; refused; unset, there is no Sentry.",
        "cps",
        TRAFFIC,
        Q(counted("atp_bridge_alerts_total", by="outcome"), "{{outcome}}"),
        empty="the bridge is not scraped, or not of the chosen jobs",
        width=12,
    )


def _check_ins() -> Panel:
    return lines(
        "Check-ins to Sentry",
        "The dead man's switches: while they come, Sentry knows that the chain works.",
        "cps",
        NoLimits("Sentry's monitors have the limit"),
        Q(counted("atp_bridge_check_ins_total", by="outcome"), "{{outcome}}"),
        empty="the bridge is not scraped, or not of the chosen jobs",
        width=12,
    )


def _lost() -> Panel:
    lost = [
        _as("outcome", "dropped", _within("atp_telemetry_dropped_total", by="signal")),
        _as("signal", "alerts", _within("atp_bridge_alerts_total", 'outcome!="sent"', by="outcome")),
        _as("signal", "check-ins", _within("atp_bridge_check_ins_total", 'outcome!="sent"', by="outcome")),
        _as("outcome", "refused", _as("signal", "notifications", _within("atp_bridge_refused_notifications_total"))),
    ]
    return rows(
        "Did not get through",
        "How much of each signal, in this time range. dropped: its sink was slow; failed: to be tried again; "
        "refused: by Sentry, or by the bridge (notifications); unset: there is no Sentry, so nobody hears of an alert.",
        "short",
        NoLimits("its neighbour has the alert's"),
        Q(" or ".join(lost)),
        columns={"signal": "Signal", "outcome": "What became of it", "Value": "How many"},
        width=12,
    )


def _within(series: str, *matchers: str, by: str = "") -> str:
    return f"sum by ({by}) (increase({select(series, *matchers)}[$__range]))"


def _as(label: str, value: str, expression: str) -> str:
    return f'label_replace({expression}, "{label}", "{value}", "", "")'


def _errors() -> Panel:
    return log_lines(
        "Error lines",
        "Of level error and critical. The field trace_id leads to the trace; request_id is in the caller's answer.",
        LogQ('{job=~"$job", level=~"error|critical"} | json | line_format "{{.event}} {{.route}} {{.request_id}}"'),
        empty="no errors",
    )


def _warnings() -> Panel:
    return log_lines(
        "Warnings",
        "Lines of level warning: what ATP took care of itself, and what it was.",
        LogQ('{job=~"$job", level="warning"} | json | line_format "{{.event}} {{.route}} {{.request_id}}"'),
        empty="no warnings",
    )
