"""The catalogue's live side: the stream between nodes, sockets, who is online."""

from service.devices import DEVICES
from service.telemetry.instruments import Instruments
from service.telemetry.labels import (
    BUS_DIRECTIONS,
    BUS_KINDS,
    WS_CLOSE_CODES,
    WS_DROPPED,
    WS_HANDSHAKES,
    WS_IN,
    WS_INITIATORS,
    WS_LIFE_S,
    WS_OUT,
)


class LiveMetrics(Instruments):
    def __init__(self) -> None:
        super().__init__()
        self._bus()
        self._sockets()

    def _bus(self) -> None:
        """The stream between nodes."""
        self.bus_messages = self._counter(
            "atp_bus_messages",
            "Bus messages: published by this node, received, skipped as a duplicate, not ours (malformed), or dropped "
            "because too many waited for Redis",
            "direction",
        )
        self.bus_gaps = self._counter("atp_bus_gaps", "Times the stream had lost entries that this node had not read")
        self.delivery_lag = self._histogram(
            "atp_ws_delivery_lag_seconds",
            "From a message's place on the bus to its sockets' queues on this node",
            "kind",
        )
        self._known(self.bus_messages, BUS_DIRECTIONS)
        self._known(self.delivery_lag, BUS_KINDS)

    def _sockets(self) -> None:
        self.ws_connections = self._gauge("atp_ws_connections", "WebSockets open on this node", "device")
        self.ws_limit = self._gauge("atp_ws_connections_max", "WebSockets that this node takes at the most")
        self.ws_queue = self._gauge("atp_ws_send_queue_bytes", "Bytes sent to WebSockets that wait for their readers")
        self.ws_queue_messages = self._gauge(
            "atp_ws_send_queue_messages",
            "Messages sent to WebSockets that wait for their readers: of each, those since it had last taken all",
        )
        self.ws_handshakes = self._counter("atp_ws_handshakes", "WebSocket handshakes by what became of them", "result")
        self.ws_disconnects = self._counter(
            "atp_ws_disconnects",
            "WebSockets ended, by who closed first and the close code; no_pong, slow_reader and cut (a drain) had none",
            *("initiator", "code"),
        )
        self.ws_duration = self._histogram(
            "atp_ws_connection_duration_seconds", "How long a WebSocket lived", buckets=WS_LIFE_S
        )
        self.ws_messages = self._counter("atp_ws_messages", "WebSocket messages", "direction", "type")
        self.ws_dropped = self._counter(
            "atp_ws_messages_dropped",
            "Pushes that a socket did not get: its reader was too far behind and cut off, or it was being closed",
            "reason",
        )
        self.ws_bytes = self._counter("atp_ws_message_bytes", "Bytes of WebSocket messages", "direction")
        self.ws_handle = self._histogram("atp_ws_handle_duration_seconds", "Time to take in a client message", "type")
        self.ws_rtt = self._histogram("atp_ws_ping_rtt_seconds", "From a ping to its pong")
        self._known(self.ws_connections, DEVICES)
        self._known(self.ws_handshakes, WS_HANDSHAKES)
        self._known(self.ws_disconnects, WS_INITIATORS, WS_CLOSE_CODES)
        self._known(self.ws_dropped, WS_DROPPED)
        for direction, types in (("in", WS_IN), ("out", WS_OUT)):
            self._known(self.ws_bytes, [direction])
            self._known(self.ws_messages, [direction], types)
