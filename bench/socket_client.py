"""One raw WebSocket client of the load, small enough to have thousands, and how each kind of server talks to it."""

import asyncio
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.frames import TEXT, masked, split

STALLED_RCVBUF = 4096
STALLED_MSS = 1400  # loopback's 64 KB segments let the kernel queue megabytes for a client; the internet's do not
IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); the socket module of Python 3.11 has no name for it
HEAD_BYTES = 200  # of a refusal that is reported


@dataclass(frozen=True)
class Plan:
    """Where to connect and how the server talks; `source` is this process's own loopback address."""

    port: int
    path: str
    source: str = "127.0.0.2"
    headers: dict[str, str] = field(default_factory=dict)
    dialect: str = "plain"


class Dialect(Protocol):
    """How a server says that a client may begin, and that it is there."""

    ping: bytes

    def text(self, client: "Client", payload: bytes) -> None: ...


class Plain:
    """JSON messages: `ready` first, `pong` for a `ping`; what has a mark is a broadcast."""

    ping = masked(TEXT, b'{"type":"ping","id":"1"}')

    def text(self, client: "Client", payload: bytes) -> None:
        if b'"ready"' in payload:
            client.opened()
        elif b'"pong"' in payload:
            client.replied()


class SocketIO:
    """Engine.IO 4 under Socket.IO 5: `0` opens the transport, `40` the namespace, `2` is a ping, `43` an answer."""

    ping = masked(TEXT, b'421["echo","1"]')

    def text(self, client: "Client", payload: bytes) -> None:
        if payload.startswith(b"43"):
            client.replied()
        elif payload.startswith(b"40"):
            client.opened()
        elif payload.startswith(b"0"):
            client.send(masked(TEXT, b"40"))
        elif payload == b"2":
            client.send(masked(TEXT, b"3"))


DIALECTS: dict[str, type[Dialect]] = {"plain": Plain, "socketio": SocketIO}


class Listener(Protocol):
    """What clients share: all that they hear goes there."""

    dialect: Dialect
    handshake: bytes

    def hear(self, client: "Client", opcode: int, payload: bytes, now_ns: int) -> None: ...

    def lose(self, client: "Client") -> None: ...

    def replied(self, client: "Client", us: int) -> None: ...


class Client(asyncio.Protocol):
    """One WebSocket. What it hears is kept by its listener, so that a client is small."""

    __slots__ = ("_listener", "_rest", "_transport", "_upgraded", "opening", "sent_ns")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._rest = b""
        self._upgraded = False
        self.opening: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self.sent_ns = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._listener.handshake)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        data = self._rest + data if self._rest else data
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._upgraded = head.startswith(b"HTTP/1.1 101")
            if not self._upgraded:
                self.refused(head[:HEAD_BYTES].decode(errors="replace"))
                return
        frames, self._rest = split(data)
        for opcode, payload in frames:
            self._listener.hear(self, opcode, payload, now_ns)

    def connection_lost(self, error: Exception | None) -> None:
        if self.opening:
            self.refused(f"closed while opening: {error}")
        self._listener.lose(self)

    def opened(self) -> None:
        if self.opening and not self.opening.done():
            self.opening.set_result(None)
        self.opening = None

    def refused(self, why: str) -> None:
        if self.opening and not self.opening.done():
            self.opening.set_exception(ConnectionError(why))
        self.opening = None
        self.abort()

    def ping(self) -> None:
        self.sent_ns = time.monotonic_ns()
        self.send(self._listener.dialect.ping)

    def replied(self) -> None:
        if self.sent_ns:
            self._listener.replied(self, (time.monotonic_ns() - self.sent_ns) // 1_000)

    def send(self, frame: bytes) -> None:
        self._transport.write(frame)

    def stop_reading(self) -> None:
        self._transport.pause_reading()

    def abort(self) -> None:
        self._transport.abort()


async def connected(plan: Plan, stalled: bool) -> socket.socket:
    """A TCP connection; the port of our side is left to connect(2), for all the source address's ports to be used."""
    connection = socket.socket()
    connection.setblocking(False)
    try:
        if stalled:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_RCVBUF)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, STALLED_MSS)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((plan.source, 0))
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", plan.port))
    except BaseException:
        connection.close()
        raise
    return connection
