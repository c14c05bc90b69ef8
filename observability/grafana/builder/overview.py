"""What one looks at first, at 3 a.m. or on any day: is it well, who is there, what is full, what does it cost."""

from observability.grafana.builder import limits, money, saturation, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import TRAFFIC, below
from observability.grafana.builder.links import on_request, to_board, to_instance
from observability.grafana.builder.panels import Panel, figure, lines, rows
from observability.grafana.builder.query import OURS, Q, counted, fleet, held, select


def board() -> Board:
    about = "State, traffic, people, saturation, alerts. Begin here."
    it = Board("atp-overview", "ATP · Overview", about, acts=True, alerts=True)
    it.row(
        "State",
        [
            shared.error_budget(12),
            shared.firing_count(),
            instances(),
            _worst_dependency(),
            _degraded_now(),
        ],
        [
            shared.online_now(),
            shared.online_peak(),
            shared.sessions_now(),
            _sockets_now(),
            _requests_now(),
            shared.blocked_now(5),
            money.spend(),
        ],
    )
    it.row("Traffic", [shared.requests_per_minute(), shared.error_share(), shared.latency()])
    it.row(
        "People",
        [shared.online_over_time(9), shared.sessions_by_device(), shared.sockets_by_device(9)],
        [shared.delivery_lag(), shared.top_keys(), _tokens()],
    )
    it.row(
        "Saturation",
        [saturation.cpu(), saturation.memory(), saturation.loop_lag()],
        [saturation.pool_use(), saturation.redis_memory(), saturation.socket_capacity()],
        [saturation.queue_depth(), saturation.queue_age(), shared.unhandled()],
    )
    it.row("Alerts and instances", [shared.firing_alerts(), shared.acts()], [instance_table(), _nodes()])
    return it


def instances() -> Panel:
    return figure(
        "Instances up",
        "Nodes and workers that Prometheus reaches, of those it should.",
        "percentunit",
        below(1),
        Q(f"sum({select('up', OURS)}) / count({select('up', OURS)})", "up"),
        links=[to_board("atp-resources", "Resources")],
    )


def _worst_dependency() -> Panel:
    return figure(
        "PostgreSQL, Redis",
        "Whether the last contact succeeded, on every instance.",
        "none",
        limits.DOWN,
        Q(held("atp_dependency_up", by="dependency", how="min"), "{{dependency}}"),
        links=[to_board("atp-resources", "Resources")],
        values={"1": "up", "0": "down"},
    )


def _degraded_now() -> Panel:
    return figure(
        "Degraded now",
        "Instances where memory stands in for Redis.",
        "short",
        limits.ANY,
        Q(held("atp_degraded"), "instances"),
        links=[to_board("atp-on-call", "On-call")],
        empty="none",
    )


def _sockets_now() -> Panel:
    return figure(
        "Sockets",
        "WebSockets open now, over all nodes.",
        "short",
        TRAFFIC,
        Q(held("atp_ws_connections"), "open"),
        links=[to_board("atp-websockets", "WebSockets")],
    )


def _requests_now() -> Panel:
    return figure(
        "Requests in progress",
        "Requests that are being answered now, streams too.",
        "short",
        TRAFFIC,
        Q(held("http_server_active_requests"), "active"),
        links=on_request(),
    )


def _tokens() -> Panel:
    return lines(
        "Tokens a second",
        "Tokens of the model calls, in and out.",
        "cps",
        TRAFFIC,
        Q(counted("gen_ai_client_token_usage_sum", by="token_type"), "{{token_type}}"),
        links=[to_board("atp-tasks-models", "Tasks & models")],
        empty="no model calls",
    )


def instance_table() -> Panel:
    """One row an instance: a click goes to its resources."""
    table = rows(
        "Instances",
        "Version and revision of every process; the nodes of the last snapshot are on Online users.",
        "none",
        limits.CONTEXT,
        Q(f"max by (job, instance, version, revision) ({select('atp_build_info')})"),
        columns={"job": "Job", "instance": "Instance", "version": "Version", "revision": "Revision"},
        width=18,
    )
    table.builder.data_links([to_instance().url(INSTANCE_OF_ROW).title("Resources of this instance")])
    return table


# A table has its labels in columns, so the link takes the row's.
INSTANCE_OF_ROW = "/d/atp-resources?${__url_time_range}&${datasource:queryparam}&var-instance=${__data.fields.Instance}"


def _nodes() -> Panel:
    return figure(
        "Nodes in the fleet",
        "Nodes that have a card in Redis; fewer than instances of the job atp: one of them is cut off.",
        "short",
        limits.CONTEXT,
        Q(fleet("nodes"), "nodes"),
        empty="no snapshot",
        width=6,
    )
