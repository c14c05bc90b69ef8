"""WebSockets through the server: what plain hypercorn 0.18 lets a client do, and that ours does not."""

import threading
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect as websocket_client

from service.server.server import ServerConfig
from tests.server.server_threads import LOOPS, ours, plain
from tests.server.slow_clients import (
    CLOSE,
    CONTINUATION,
    TEXT,
    close_code,
    connect,
    frame,
    handshake,
    reset,
    response,
    until,
    until_closed,
    upgrade,
    websocket,
)

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
LIMIT = 65_536

every_loop = pytest.mark.parametrize("loop", LOOPS)


class Echo:
    """Echoes text, and remembers what it received and how each socket ended."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.codes: list[int] = []
        self.app = Starlette(routes=[WebSocketRoute("/ws", self.echo)])

    async def echo(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                text = await socket.receive_text()
                self.received.append(text)
                await socket.send_text(text)
        except WebSocketDisconnect as end:
            self.codes.append(end.code)


class Flood:
    """Sends 64 KB messages for ever, and says when it was stopped."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.enough = False
        self.app = Starlette(routes=[WebSocketRoute("/ws", self.flood)])

    async def flood(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while not self.enough:
                await socket.send_text("x" * 65_536)
        except WebSocketDisconnect:
            pass
        finally:
            self.ended.set()


@every_loop
def test_a_reader_that_stalls_is_freed_at_the_write_deadline(loop: str) -> None:
    flood = Flood()
    with ours(flood.app, loop, write_deadline_s=0.4) as server, websocket(server.port, receive_buffer=4096):
        assert flood.ended.wait(3)
        assert until(lambda: server.server.connections == 0, 1)
        assert server.counted == ["writer_stalled"]


def test_plain_hypercorn_keeps_a_reader_that_stalls() -> None:
    flood = Flood()
    with plain(flood.app) as server, websocket(server.port, receive_buffer=4096) as sock:
        assert not flood.ended.wait(1.5)
        flood.enough = True  # it drops what is sent to a client that has gone, and so would send for ever
        reset(sock)


def test_a_stalled_reader_whose_bytes_are_all_in_the_kernel_is_freed_too() -> None:
    ended = threading.Event()

    async def one_message(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("x" * 100_000)
        assert (await socket.receive())["type"] == "websocket.disconnect"
        ended.set()

    app = Starlette(routes=[WebSocketRoute("/ws", one_message)])
    with ours(app, unacknowledged_s=0.6) as server, websocket(server.port, receive_buffer=4096):
        assert ended.wait(4)
        assert server.counted == []


def test_a_stalled_reader_is_gone_within_ten_seconds_by_default() -> None:
    config = ServerConfig()
    assert config.write_deadline_s == 5.0  # freed after one and a half at most: see Connection._watch_writes
    assert config.unacknowledged_s == 10.0


@every_loop
def test_a_reader_that_is_slow_but_reads_is_kept(loop: str) -> None:
    echo = Echo()
    with ours(echo.app, loop, write_deadline_s=0.2) as server, websocket(server.port, receive_buffer=4096) as sock:
        for _ in range(2):
            sock.sendall(frame(b"x" * 60_000))
        received = b""
        pause = threading.Event()
        while len(received) < 2 * 60_000:
            pause.wait(0.02)  # 0.8 s in all: four deadlines
            part = sock.recv(3_000)
            assert part
            received += part
        assert server.counted == []


@every_loop
def test_permessage_deflate_is_refused(loop: str) -> None:
    with ours(Echo().app, loop) as server:
        with connect(server.port) as sock:
            head = upgrade(sock, DEFLATE)
            assert b"sec-websocket-extensions" not in head.lower()
        with websocket_client(f"ws://127.0.0.1:{server.port}/ws", compression="deflate") as client:
            assert client.protocol.extensions == []
            client.send("hé")
            assert client.recv() == "hé"


def test_plain_hypercorn_agrees_to_permessage_deflate() -> None:
    with plain(Echo().app) as server, connect(server.port) as sock:
        head = upgrade(sock, DEFLATE)
        assert b"permessage-deflate" in head


@every_loop
def test_a_message_over_64_kb_is_closed_with_1009_and_one_of_64_kb_is_not(loop: str) -> None:
    echo = Echo()
    with (
        ours(echo.app, loop) as server,
        websocket_client(f"ws://127.0.0.1:{server.port}/ws", max_size=None) as client,
    ):
        client.send("x" * LIMIT)
        assert len(client.recv()) == LIMIT
        client.send("x" * (LIMIT + 1))
        with pytest.raises(ConnectionClosedError, match="1009"):
            client.recv()
        assert until(lambda: echo.codes == [1009], 1)
        assert server.counted == ["message_oversize"]


def test_a_message_is_measured_in_bytes_not_in_characters() -> None:
    text = "é" * 40_000  # 80,000 bytes
    echo = Echo()
    with ours(echo.app) as server, websocket(server.port) as sock:
        sock.sendall(frame(text.encode()))
        assert close_code(until_closed(sock)) == 1009
    assert echo.received == []
    with plain(echo.app, websocket_max_message_size=LIMIT) as server, websocket(server.port) as sock:
        sock.sendall(frame(text.encode()))
        assert until(lambda: echo.received == [text], 1)


def send_fragments(sock: Any, number: int) -> int:
    """Send fragments of 16 KB of one endless message; how many were taken before the connection was cut."""
    part = b"x" * 16_384
    for sent in range(number):
        try:
            sock.sendall(frame(part, CONTINUATION if sent else TEXT, final=False))
        except ConnectionError:
            return sent
    return number


@every_loop
def test_endless_fragments_are_answered_1009_and_cut(loop: str) -> None:
    echo = Echo()
    with ours(echo.app, loop) as server, websocket(server.port) as sock:
        assert send_fragments(sock, 1024) < 1024  # 16 MB: what is under way when it is cut is in the kernel's buffers
        assert until(lambda: server.server.connections == 0, 1)
        assert echo.codes == [1009]
        assert server.counted == ["message_oversize"]
        assert close_code(until_closed(sock)) == 1009


def test_plain_hypercorn_goes_on_taking_fragments_after_1009() -> None:
    echo = Echo()
    with plain(echo.app, websocket_max_message_size=LIMIT) as server, websocket(server.port) as sock:
        assert send_fragments(sock, 1024) == 1024
        assert echo.codes == []
        reset(sock)


def test_the_application_learns_the_clients_close_code() -> None:
    echo = Echo()
    with ours(echo.app) as server:
        with websocket(server.port) as sock:
            sock.sendall(frame((3456).to_bytes(2, "big"), CLOSE))
            assert close_code(until_closed(sock)) == 3456
            assert until(lambda: echo.codes == [3456], 1)
        with websocket(server.port) as sock:
            reset(sock)
            assert until(lambda: echo.codes == [3456, 1006], 1)


def test_plain_hypercorn_reports_every_close_as_1006() -> None:
    echo = Echo()
    with plain(echo.app) as server, websocket(server.port) as sock:
        sock.sendall(frame((3456).to_bytes(2, "big"), CLOSE))
        assert until(lambda: echo.codes == [1006], 1)


@every_loop
def test_a_broken_frame_is_closed_with_1002(loop: str) -> None:
    echo = Echo()
    with ours(echo.app, loop) as server, websocket(server.port) as sock:
        sock.sendall(b"\xff\xff\xff\xff\xff\xff\xff\xff")
        assert close_code(until_closed(sock)) == 1002
        assert until(lambda: echo.codes == [1002], 1)


def test_plain_hypercorn_cuts_a_broken_frame_without_a_word() -> None:
    with plain(Echo().app) as server, websocket(server.port) as sock:
        sock.sendall(b"\xff\xff\xff\xff\xff\xff\xff\xff")
        assert until_closed(sock) == b""


def test_an_invalid_handshake_is_answered_400_and_closed() -> None:
    request = handshake().replace(b"Version: 13", b"Version: 12")
    with ours(Echo().app) as server, connect(server.port) as sock:
        sock.sendall(request)
        assert until_closed(sock).startswith(b"HTTP/1.1 400")
    with plain(Echo().app) as server, connect(server.port) as sock:
        sock.sendall(request)
        assert response(sock).status == 400
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):  # plain hypercorn leaves it open for ever
            sock.recv(1)


def test_a_handshake_that_is_not_ascii_is_answered_400() -> None:
    request = handshake("Sec-WebSocket-Protocol: caf\xe9\r\n")
    with ours(Echo().app) as server, connect(server.port) as sock:
        sock.sendall(request)
        assert until_closed(sock).startswith(b"HTTP/1.1 400")
        assert server.counted == ["request_refused"]
    with plain(Echo().app) as server, connect(server.port) as sock:
        sock.sendall(request)
        assert until_closed(sock) == b""  # and a traceback, once the failed task is collected


def test_a_frame_before_the_handshake_is_accepted_ends_the_application_too() -> None:
    ended = threading.Event()

    async def waits(socket: WebSocket) -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        ended.set()

    app = Starlette(routes=[WebSocketRoute("/ws", waits)])
    with ours(app) as server, connect(server.port) as sock:
        sock.sendall(handshake() + frame(b"early"))
        assert until_closed(sock).startswith(b"HTTP/1.1 400")
        assert ended.wait(1)
    ended.clear()
    with plain(app) as server, connect(server.port) as sock:
        sock.sendall(handshake() + frame(b"early"))
        assert response(sock).status == 400
        assert not ended.wait(0.5)


def test_sending_to_a_client_that_has_gone_is_an_error() -> None:
    ended = threading.Event()

    async def pushes(socket: WebSocket) -> None:
        await socket.accept()
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        socket.application_state = socket.application_state.CONNECTED
        try:
            await socket.send_text("anyone there?")
        except WebSocketDisconnect:
            ended.set()

    with ours(Starlette(routes=[WebSocketRoute("/ws", pushes)])) as server:
        websocket(server.port).close()
        assert ended.wait(1)


@every_loop
def test_draining_closes_open_sockets_with_1012_and_tells_the_application(loop: str) -> None:
    echo = Echo()
    with ours(echo.app, loop) as server:
        with websocket_client(f"ws://127.0.0.1:{server.port}/ws") as client:
            client.send("here")
            assert client.recv() == "here"
            server.stop()
            with pytest.raises(ConnectionClosedError, match="1012"):
                client.recv()
        server.thread.join(2)
        assert not server.thread.is_alive()
    assert echo.codes == [1012]
    assert "drain_cut" not in server.counted
