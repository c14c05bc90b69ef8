"""Clients that behave as badly as the tests want: raw sockets, blocking, with a time limit on everything."""

import json
import socket
import struct
import time
from collections.abc import Callable
from http.client import HTTPResponse

HOST = "127.0.0.1"
TIMEOUT_S = 5.0
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
TEXT, CLOSE, CONTINUATION = 1, 8, 0


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(TIMEOUT_S)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        sock.connect((HOST, port))
        if sock.getsockname() == sock.getpeername():  # nobody listens, and the kernel chose that very port for us
            raise ConnectionRefusedError
    except OSError:
        sock.close()
        raise
    return sock


def is_listening(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionError:
        return False
    return True


def response(sock: socket.socket, method: str = "GET") -> HTTPResponse:
    """The next answer on `sock`, its body still to be read."""
    answer = HTTPResponse(sock, method=method)
    answer.begin()
    return answer


def status(port: int, request: bytes) -> int:
    with connect(port) as sock:
        sock.sendall(request)
        return response(sock).status


def until_closed(sock: socket.socket) -> bytes:
    """Everything until the server closes; an abort counts as closed. Raises TimeoutError."""
    received = b""
    while True:
        try:
            data = sock.recv(65_536)
        except ConnectionError:
            return received
        if not data:
            return received
        received += data


def is_open(sock: socket.socket) -> bool:
    """Whether the server has neither closed nor said anything."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        sock.settimeout(TIMEOUT_S)


def is_established(sock: socket.socket) -> bool:
    """Whether the server has not reset the connection, whatever is still unread (tcp(7): TCP_INFO, TCP_ESTABLISHED)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


def reset(sock: socket.socket) -> None:
    """Go away with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until(condition: Callable[[], object], within_s: float) -> bool:
    """Whether `condition` comes true within the time."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def handshake(headers: str = "") -> bytes:
    return (
        "GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    ).encode("latin-1")


def websocket(port: int, receive_buffer: int | None = None) -> socket.socket:
    """An open WebSocket."""
    sock = connect(port, receive_buffer)
    upgrade(sock)
    return sock


def upgrade(sock: socket.socket, headers: str = "") -> bytes:
    """Shake hands; returns the head of the answer."""
    sock.sendall(handshake(headers))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    assert b" 101 " in head.splitlines()[0], head
    return head


def frame(payload: bytes, opcode: int = TEXT, final: bool = True) -> bytes:
    """A client's frame (masked with zeros, which leaves the payload as it is)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    return bytes([opcode | (0x80 if final else 0)]) + length + b"\0\0\0\0" + payload


def close_code(received: bytes) -> int | None:
    """The code in the close frame that ends `received`, if one does."""
    at = received.rfind(b"\x88")
    return struct.unpack("!H", received[at + 2 : at + 4])[0] if at >= 0 else None


def parsed(answer: HTTPResponse) -> object:
    return json.loads(answer.read())
