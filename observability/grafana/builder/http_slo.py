"""Requests: the SLOs and how fast their budgets burn; which routes are slow or fail; the lines and traces behind it."""

from observability.grafana.builder import limits, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import TRAFFIC, NoLimits, above
from observability.grafana.builder.links import on_instance, on_request
from observability.grafana.builder.panels import Panel, lines, log_lines, rows, warmth
from observability.grafana.builder.query import LogQ, Q, counted, held, quantile, share
from observability.grafana.builder.shared import FIVE_XX, REQUESTS

BURN = "atp:slo_error_ratio:rate{} / on (slo) group_left () (1 - atp:slo_objective)"


def board() -> Board:
    it = Board("atp-http-slo", "ATP · HTTP & SLO", "Requests, errors, latency, error budgets.")
    it.row(
        "SLO", [shared.error_budget(24)], [_burn("1h", "page"), _burn("6h", "page"), _burn("3d", "ticket")], [_slos()]
    )
    it.row("Requests", [shared.requests_per_minute(), shared.error_share(), shared.latency()])
    it.row("Routes", [_by_route(), _slow_routes(), _failing_routes()], [_heat(), _active()])
    it.row("Refused and broken", [_availability(), shared.unhandled(), _cut()])
    it.row("Lines", [_error_lines()])
    return it


def _burn(window: str, severity: str) -> Panel:
    rate = limits.BURNS[window]
    return lines(
        f"Burn rate over {window}",
        f"How many times too fast the budget burns. AtpErrorBudgetBurn ({severity}) looks at it from {rate} on.",
        "short",
        above(rate),
        Q(f"max by (slo) ({BURN.format(window)})", "{{slo}}"),
        empty="no errors",
    )


def _slos() -> Panel:
    return rows(
        "Objectives",
        "What is promised over 30 days, by SLO.",
        "percentunit",
        NoLimits("it is the promise itself"),
        Q("max by (slo) (atp:slo_objective)"),
        columns={"slo": "SLO", "Value": "Objective"},
        height=6,
    )


def _by_route() -> Panel:
    return lines(
        "Requests by route",
        "Requests a second, by route template.",
        "reqps",
        TRAFFIC,
        Q(counted(f"{REQUESTS}_count", by="http_request_method, http_route"), "{{http_request_method}} {{http_route}}"),
        links=on_request(),
    )


def _slow_routes() -> Panel:
    return lines(
        "Response time by route, p95",
        "95 of 100 requests of the route are faster. Chats wait for their model; the SLO leaves streams out.",
        "s",
        above(limits.LATENCY_SLO_S),
        Q(quantile(0.95, REQUESTS, by="http_route"), "{{http_route}}", exemplars=True),
        links=on_request(),
        empty="no requests",
    )


def _failing_routes() -> Panel:
    return lines(
        "Failing routes",
        "4xx and 5xx answers a second, by route and status.",
        "reqps",
        limits.ANY_RATE,
        Q(
            counted(
                f"{REQUESTS}_count", 'http_response_status_code=~"[45].."', by="http_route, http_response_status_code"
            )
            + " > 0",
            "{{http_response_status_code}} {{http_route}}",
        ),
        links=on_request(),
        empty="no errors",
    )


def _heat() -> Panel:
    return warmth(
        "Response times",
        "How many requests a second took how long; the dots are traces.",
        "s",
        NoLimits("the SLO's 0.5 s is an edge of its buckets"),
        Q(counted(f"{REQUESTS}_bucket", by="le"), "{{le}}", exemplars=True),
    )


def _active() -> Panel:
    return lines(
        "Requests in progress by instance",
        "Requests that are being answered, streams too.",
        "short",
        TRAFFIC,
        Q(held("http_server_active_requests", by="instance"), "{{instance}}"),
        links=on_instance(),
        width=12,
    )


def _availability() -> Panel:
    return lines(
        "Availability by instance",
        "Answers that were not 5xx; an instance below the others is the one to drain.",
        "percentunit",
        limits.below(1 - 10 * limits.AVAILABILITY_ERRORS, 1 - limits.AVAILABILITY_ERRORS),
        Q(
            "1 - "
            + share(
                f"({counted(f'{REQUESTS}_count', FIVE_XX, by='instance')} or "
                f"0 * {counted(f'{REQUESTS}_count', by='instance')})",
                counted(f"{REQUESTS}_count", by="instance"),
            ),
            "{{instance}}",
        ),
        links=on_instance(),
        empty="no requests",
        most=1,
    )


def _cut() -> Panel:
    return lines(
        "Connections cut",
        "Connections that ATP ended to protect itself, by reason.",
        "cps",
        NoLimits("clients cause it; AtpWSDropStorm has the limit of sockets"),
        Q(counted("atp_connections_cut_total", by="reason"), "{{reason}}"),
        empty="no errors",
    )


def _error_lines() -> Panel:
    return log_lines(
        "Errors in the log",
        "Lines of level error and critical, newest first. A line's field trace_id leads to its trace.",
        LogQ('{job=~"$job", level=~"error|critical"} | json'),
        empty="no errors",
    )
