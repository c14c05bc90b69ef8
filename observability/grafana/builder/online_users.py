"""Who is there: now, at the peak, by day, week and month, by device; who is kept out; who asks most."""

from observability.grafana.builder import limits, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import CONTEXT, TRAFFIC, above
from observability.grafana.builder.links import to_board
from observability.grafana.builder.panels import Panel, figure, lines
from observability.grafana.builder.query import Q, fleet

# 0 is "never": no age then.
SINCE = "time() - ({} > 0)"


def board() -> Board:
    it = Board("atp-online-users", "ATP · Online users", "People, sessions, devices, peaks.", span="now-24h", acts=True)
    it.row(
        "Now",
        [
            shared.online_now(),
            shared.online_peak(),
            shared.sessions_now(),
            _active(),
            shared.blocked_now(),
            _nodes(),
            _socket_peak(),
        ],
    )
    it.row(
        "Over time",
        [shared.online_over_time(12), _sessions(12)],
        [shared.sessions_by_device(), shared.sockets_by_device(9), _active_over_time()],
    )
    it.row("Busy, and kept out", [shared.top_keys(12), _blocked_over_time()])
    it.row("Is it true", [_age(), _duration(), _drift(), _peak_age(), _broadcast_age()])
    it.row("Administration", [shared.acts(24)])
    return it


def _active() -> Panel:
    return figure(
        "Active users",
        "Different users of the last day, week and month, to about 1 %.",
        "short",
        TRAFFIC,
        Q(fleet("active_users", by="window"), "{{window}}"),
        width=5,
        empty="no snapshot",
    )


def _nodes() -> Panel:
    return figure(
        "Nodes",
        "Nodes that take part in counting.",
        "short",
        CONTEXT,
        Q(fleet("nodes"), "nodes"),
        width=2,
        empty="no snapshot",
    )


def _socket_peak() -> Panel:
    return figure(
        "Peak of sockets",
        "The most WebSockets at a time: of this day, and ever.",
        "short",
        TRAFFIC,
        Q(fleet("ws_connections_peak", by="window"), "{{window}}"),
        links=[to_board("atp-websockets", "WebSockets")],
        empty="no snapshot",
    )


def _sessions(width: int) -> Panel:
    return lines(
        "Sessions over time",
        "Sessions by the device's class.",
        "short",
        TRAFFIC,
        Q(fleet("sessions", by="device"), "{{device}}"),
        empty="no snapshot",
        width=width,
        stacked=True,
    )


def _active_over_time() -> Panel:
    return lines(
        "Active users over time",
        "Different users of the last day, week and month.",
        "short",
        TRAFFIC,
        Q(fleet("active_users", by="window"), "{{window}}"),
        empty="no snapshot",
        width=9,
    )


def _blocked_over_time() -> Panel:
    return lines(
        "Blocks over time",
        "Blocks in force, by what is blocked.",
        "short",
        CONTEXT,
        Q(fleet("blocked_users", by="reason"), "{{reason}}"),
        empty="no snapshot",
        width=12,
    )


def _age() -> Panel:
    return lines(
        "Age of the snapshot",
        "All fleet figures are of this moment; from 30 s on no node exports them, and AtpFleetSnapshotStale fires.",
        "s",
        above(limits.SNAPSHOT_STALE_S),
        Q(f"time() - {fleet('snapshot_timestamp_seconds')}", "age"),
        empty="no snapshot",
        width=6,
    )


def _duration() -> Panel:
    return lines(
        "Time to take the snapshot",
        "How long one node took to read the fleet's figures; it has 10 s.",
        "s",
        above(10, 5),
        Q(fleet("snapshot_duration_seconds"), "duration"),
        empty="no snapshot",
        width=6,
    )


def _drift() -> Panel:
    return lines(
        "Drift of the counters",
        "Counted minus recounted sessions; anything but 0 for long is a fault, and AtpPresenceDrift fires.",
        "short",
        limits.ANY,
        Q(f"abs({fleet('presence_drift')})", "drift"),
        empty="no snapshot",
        width=6,
    )


def _peak_age() -> Panel:
    return figure(
        "Since the peak",
        "How long ago the peaks were.",
        "s",
        CONTEXT,
        Q(SINCE.format(fleet("online_users_peak_timestamp_seconds", by="window")), "{{window}}"),
        empty="no peak yet",
    )


def _broadcast_age() -> Panel:
    return figure(
        "Since the last broadcast",
        "How long ago an administrator wrote to everybody; the purple lines are broadcasts.",
        "s",
        CONTEXT,
        Q(SINCE.format(fleet("last_broadcast_timestamp_seconds")), "broadcast"),
        empty="never",
    )
