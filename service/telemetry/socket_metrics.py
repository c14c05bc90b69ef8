"""What is counted of WebSockets: the hub, the handshake and the conversations tell it here in their own words."""

from service.devices import DEVICES, Device
from service.telemetry.labels import WS_CLOSE_CODES, WS_HANDSHAKES
from service.telemetry.metrics import Metrics
from service.telemetry.operations import observe

# What the server closes with on its own account: broken frames or UTF-8, a message too big, a fault, a drain's end.
SERVERS_OWN = frozenset({"1002", "1007", "1009", "1011", "1012", "cut"})


class SocketMetrics:
    """Labels come from closed sets: a code or a result that nobody foresaw is `other`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._connections = {device: metrics.ws_connections.labels(device) for device in DEVICES}

    def handshake(self, result: str) -> None:
        self._metrics.ws_handshakes.labels(result if result in WS_HANDSHAKES else "other").inc()

    def joined(self, device: Device) -> None:
        self._connections[device].inc()

    def left(self, device: Device) -> None:
        self._connections[device].dec()

    def ended(self, ended_by: str, client_code: str, duration_s: float) -> None:
        """`ended_by` is our code, or why we cut it; empty when it was the client."""
        code = ended_by or client_code
        initiator = "server" if ended_by or code in SERVERS_OWN else "client"
        self._metrics.ws_disconnects.labels(initiator, code if code in WS_CLOSE_CODES else "other").inc()
        self._metrics.ws_duration.observe(duration_s)

    def received(self, type_: str, message_bytes: int, handle_s: float) -> None:
        self._metrics.ws_messages.labels("in", type_).inc()
        self._metrics.ws_bytes.labels("in").inc(message_bytes)
        observe(self._metrics.ws_handle.labels(type_), handle_s)

    def sent(self, type_: str, messages: int, message_bytes: int) -> None:
        self._metrics.ws_messages.labels("out", type_).inc(messages)
        self._metrics.ws_bytes.labels("out").inc(message_bytes)

    def dropped(self, reason: str) -> None:
        self._metrics.ws_dropped.labels(reason).inc()

    def rtt(self, seconds: float) -> None:
        self._metrics.ws_rtt.observe(seconds)
