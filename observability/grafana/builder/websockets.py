"""Sockets: how many, of how many; how they begin and end; what goes in and out, and how late; the bus between nodes."""

from observability.grafana.builder import limits, saturation, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import CONTEXT, TRAFFIC, NoLimits, above
from observability.grafana.builder.links import on_instance
from observability.grafana.builder.panels import Panel, lines
from observability.grafana.builder.query import Q, counted, fleet, held, quantile, share

OUT = 'direction="out"'


def board() -> Board:
    it = Board("atp-websockets", "ATP · WebSockets", "Sockets, messages, delivery, the bus between nodes.")
    it.row("Sockets", [shared.sockets_by_device(), _by_instance(), saturation.socket_capacity()])
    it.row("Come and go", [_handshakes(), _refused(), _disconnects()], [_lifetime(), _rtt(), _peaks()])
    it.row("Messages", [_messages("in"), _messages("out"), _bytes()], [_handling(), shared.delivery_lag(), _late()])
    it.row("Pressure", [_dropped(), _waiting(), _bus()], [_gaps(), _waiting_messages()])
    return it


def _by_instance() -> Panel:
    return lines(
        "Sockets by instance",
        "Open sockets on each node, and how many one takes.",
        "short",
        NoLimits("the limit is a line of its own"),
        Q(held("atp_ws_connections", by="instance"), "{{instance}}"),
        Q(held("atp_ws_connections_max", how="max"), "limit of a node"),
        links=on_instance(),
    )


def _handshakes() -> Panel:
    return lines(
        "Handshakes",
        "Sockets that asked to come in and what became of them.",
        "cps",
        TRAFFIC,
        Q(counted("atp_ws_handshakes_total", by="result") + " > 0", "{{result}}"),
        empty="no handshakes",
        stacked=True,
    )


def _refused() -> Panel:
    return lines(
        "Refused handshakes",
        "Share of the handshakes that were not accepted.",
        "percentunit",
        above(0.5, 0.1),
        Q(
            share(counted("atp_ws_handshakes_total", 'result!="accepted"'), counted("atp_ws_handshakes_total")),
            "refused",
        ),
        empty="no handshakes",
        most=1,
    )


def _disconnects() -> Panel:
    return lines(
        "Disconnects",
        "Sockets that ended: who closed first, and the close code. 1012 is a drain, 4001 a revoked key, 4003 a block.",
        "cps",
        NoLimits("AtpWSDropStorm compares it with the sockets there are, and with the hour before"),
        Q(counted("atp_ws_disconnects_total", by="initiator, code") + " > 0", "{{initiator}} {{code}}"),
        empty="no disconnects",
        stacked=True,
    )


def _lifetime() -> Panel:
    return lines(
        "Lifetime of sockets",
        "How long the sockets that ended had lived: the median, and the 5 % that lived shortest.",
        "s",
        CONTEXT,
        Q(quantile(0.5, "atp_ws_connection_duration_seconds"), "p50"),
        Q(quantile(0.05, "atp_ws_connection_duration_seconds"), "p5"),
        empty="no disconnects",
    )


def _rtt() -> Panel:
    return lines(
        "Ping round trip",
        "From a ping to its pong: the clients' network.",
        "s",
        above(2.5, 1),
        Q(quantile(0.5, "atp_ws_ping_rtt_seconds"), "p50"),
        Q(quantile(0.95, "atp_ws_ping_rtt_seconds"), "p95"),
        empty="no pings",
    )


def _peaks() -> Panel:
    return lines(
        "Peaks of sockets",
        "The most sockets at a time over the whole fleet.",
        "short",
        TRAFFIC,
        Q(fleet("ws_connections_peak", by="window"), "{{window}}"),
        empty="no snapshot",
    )


def _messages(direction: str) -> Panel:
    return lines(
        f"Messages {direction}",
        f"WebSocket messages {'of' if direction == 'in' else 'to'} clients, by type.",
        "cps",
        TRAFFIC,
        Q(counted("atp_ws_messages_total", f'direction="{direction}"', by="type"), "{{type}}"),
        empty="no messages",
        stacked=True,
    )


def _bytes() -> Panel:
    return lines(
        "Bytes",
        "Bytes of WebSocket messages, in and out.",
        "Bps",
        TRAFFIC,
        Q(counted("atp_ws_message_bytes_total", by="direction"), "{{direction}}"),
        empty="no messages",
    )


def _handling() -> Panel:
    return lines(
        "Time to take in a message, p95",
        "From a client's message to what it starts; answers are not part of it.",
        "s",
        above(limits.LATENCY_SLO_S),
        Q(quantile(0.95, "atp_ws_handle_duration_seconds", by="type"), "{{type}}", exemplars=True),
        links=on_instance()[1:],
        empty="no messages",
    )


def _late() -> Panel:
    lag, push = "atp_ws_delivery_lag_seconds", 'kind="push"'
    return lines(
        "Delivered late",
        "Share of the pushes that took over 0.5 s, once for each node. SLO: at most 0.5 % over 30 days.",
        "percentunit",
        above(limits.WS_LATE),
        Q("1 - " + share(counted(f"{lag}_bucket", push, 'le="0.5"'), counted(f"{lag}_count", push)), "late"),
        empty="nothing was delivered",
    )


def _dropped() -> Panel:
    dropped = "atp_ws_messages_dropped_total"
    whole = f"({counted(dropped)} + {counted('atp_ws_messages_total', OUT)}) > 0"
    return lines(
        "Messages dropped",
        "Share of the messages for sockets that did not reach them: the reader was too far behind, or the socket was "
        "closing. AtpWSBackpressure has this limit, for both together.",
        "percentunit",
        above(limits.WS_DROPPED),
        Q(f"{counted(dropped, by='reason')} / on () group_left () ({whole})", "{{reason}}"),
        links=on_instance()[1:],
        empty="no messages",
        stacked=True,
    )


def _waiting() -> Panel:
    return lines(
        "Bytes waiting to be sent",
        "Sent to sockets whose readers have not taken them yet.",
        "bytes",
        above(limits.SEND_QUEUE_BYTES, limits.SEND_QUEUE_BYTES / 4),
        Q(held("atp_ws_send_queue_bytes", by="instance"), "{{instance}}"),
        links=on_instance(),
        empty="no queue",
    )


def _waiting_messages() -> Panel:
    return lines(
        "Messages waiting to be sent",
        "Of each socket those since its reader had last taken all.",
        "short",
        NoLimits("a slow reader is given up by its bytes"),
        Q(held("atp_ws_send_queue_messages", by="instance"), "{{instance}}"),
        links=on_instance(),
        empty="no queue",
        width=12,
    )


def _bus() -> Panel:
    return lines(
        "Bus between nodes",
        "Messages on the stream: published, received, and what went wrong (duplicate, malformed, dropped).",
        "cps",
        TRAFFIC,
        Q(counted("atp_bus_messages_total", by="direction"), "{{direction}}"),
        empty="nothing was said",
    )


def _gaps() -> Panel:
    return lines(
        "Gaps of the bus",
        "Times that a node had not read what the stream no longer has; its clients were told of a gap.",
        "cps",
        limits.ANY_RATE,
        Q(counted("atp_bus_gaps_total", by="instance"), "{{instance}}"),
        links=on_instance(),
        empty="no gaps",
        width=12,
    )
