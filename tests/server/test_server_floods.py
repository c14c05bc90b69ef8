"""WebSocket clients that send tiny frames as fast as they can: the useless ones are cut, and nobody waits for any."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.server.websocket import FixedWindow
from tests.server.server_threads import LOOPS, Running, ours
from tests.server.slow_clients import (
    CONTINUATION,
    TEXT,
    close_code,
    connect,
    frame,
    response,
    until,
    until_closed,
    websocket,
)

PING, PONG = 9, 10
ANSWER = b"\x81\x02ok"  # the text "ok", as a server sends it
FLOODS = {
    "pings": (b"", frame(b"", PING)),
    "pongs": (b"", frame(b"", PONG)),
    "fragments": (frame(b"", TEXT, final=False), frame(b"", CONTINUATION, final=False)),
    "messages": (b"", frame(b"")),
}

every_loop = pytest.mark.parametrize("loop", LOOPS)
every_flood = pytest.mark.parametrize("kind", FLOODS)


async def healthz(request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


class Talk:
    """Answers "ok" to every text but an empty one, remembers how long each was, and how each socket ended."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.codes: list[int] = []
        self.app = Starlette(routes=[WebSocketRoute("/ws", self.talk), Route("/healthz", healthz)])

    async def talk(self, ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                if text := await ws.receive_text():
                    self.lengths.append(len(text))
                    await ws.send_text("ok")
        except WebSocketDisconnect as end:
            self.codes.append(end.code)


def take(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    received = b""
    while len(received) < size:
        part = sock.recv(size - len(received))
        assert part, received
        received += part
    return received


class Attacker:
    """Sends 64 KB of the same small frame again and again, and connects anew whenever it is cut."""

    def __init__(self, port: int, kind: str) -> None:
        self._port = port
        self._first, one = FLOODS[kind]
        self._block = one * (65_536 // len(one))
        self.blocks = 0
        self.enough = False

    def run(self) -> None:
        while not self.enough:
            try:
                with websocket(self._port) as sock:
                    sock.sendall(self._first)
                    while not self.enough:
                        sock.sendall(self._block)
                        self.blocks += 1
            except OSError:
                pass  # cut


@contextmanager
def attacked(port: int, kind: str) -> Iterator[Attacker]:
    attacker = Attacker(port, kind)
    thread = threading.Thread(target=attacker.run, daemon=True)
    thread.start()
    try:
        yield attacker
    finally:
        attacker.enough = True
        thread.join(5)
    assert not thread.is_alive()


def health_seconds(server: Running) -> float:
    started = time.perf_counter()
    with connect(server.port) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        assert response(sock).read() == b"well"
    return time.perf_counter() - started


@every_flood
@every_loop
def test_other_clients_are_served_while_one_floods(loop: str, kind: str) -> None:
    with ours(Talk().app, loop) as server, attacked(server.port, kind) as attacker:
        assert until(lambda: attacker.blocks, 2)
        before = attacker.blocks
        waits: list[float] = []
        while len(waits) < 20 or attacker.blocks == before:  # until more of the flood has been taken
            waits.append(health_seconds(server))
        assert max(waits) < 0.5


@pytest.mark.parametrize("kind", ["pings", "pongs", "fragments"])
@every_loop
def test_a_flood_of_frames_that_say_nothing_is_closed_with_1008_and_counted(loop: str, kind: str) -> None:
    talk = Talk()
    first, one = FLOODS[kind]
    with ours(talk.app, loop) as server:
        with websocket(server.port) as sock:
            sock.sendall(first + one * 3_000)
            assert close_code(until_closed(sock)) == 1008
            assert until(lambda: talk.codes == [1008], 1)
        assert until(lambda: server.server.connections == 0, 1)
        assert server.counted == ["frame_flood"]


def test_messages_are_the_applications_to_limit_however_small() -> None:
    talk = Talk()
    with ours(talk.app) as server, websocket(server.port) as sock:
        sock.sendall(frame(b"") * 10_000 + frame(b"still there?"))
        assert take(sock, 4) == ANSWER
        assert server.counted == []


def test_a_hundred_pings_at_once_are_all_answered() -> None:
    with ours(Talk().app) as server, websocket(server.port) as sock:
        sock.sendall(frame(b"", PING) * 100 + frame(b"still there?"))
        assert take(sock, 204).replace(ANSWER, b"") == b"\x8a\x00" * 100
        assert server.counted == []


def test_a_hundred_pongs_that_nobody_asked_for_are_taken() -> None:
    with ours(Talk().app) as server, websocket(server.port) as sock:
        sock.sendall(frame(b"", PONG) * 100 + frame(b"still there?"))
        assert take(sock, 4) == ANSWER
        assert server.counted == []


def fragmented(fragment: bytes, number: int) -> bytes:
    """A text of `number` fragments and an empty last frame."""
    rest = frame(fragment, CONTINUATION, final=False) * (number - 1)
    return frame(fragment, TEXT, final=False) + rest + frame(b"", CONTINUATION)


@every_loop
def test_a_message_in_a_thousand_small_fragments_arrives_whole(loop: str) -> None:
    talk = Talk()
    with ours(talk.app, loop) as server, websocket(server.port) as sock:
        sock.sendall(fragmented(b"x", 1_000))
        assert take(sock, 4) == ANSWER
        assert talk.lengths == [1_000]
        assert server.counted == []


def test_messages_of_the_largest_size_may_come_in_fragments_of_64_bytes_one_after_the_other() -> None:
    talk = Talk()
    with ours(talk.app) as server, websocket(server.port) as sock:
        sock.sendall(fragmented(b"x" * 64, 1_024) * 4)
        assert take(sock, 16) == ANSWER * 4
        assert talk.lengths == [65_536] * 4
        assert server.counted == []


def test_messages_of_few_fragments_are_a_flood_too_when_there_are_enough_of_them() -> None:
    talk = Talk()
    with ours(talk.app) as server, websocket(server.port) as sock:
        sock.sendall(fragmented(b"", 100) * 30)
        assert close_code(until_closed(sock)) == 1008
        assert server.counted == ["frame_flood"]


def test_a_window_allows_a_thousand_in_a_second_and_forgets_them_after_it() -> None:
    window = FixedWindow()
    assert window.spend(990, now=50.0)
    assert window.spend(10, now=50.9)
    assert not window.spend(1, now=50.99)
    assert window.spend(1_000, now=51.0)
    assert not window.spend(1, now=51.5)
    assert window.spend(1, now=60.0)


@every_loop
def test_a_node_that_is_flooded_still_drains(loop: str) -> None:
    talk = Talk()
    with ours(talk.app, loop) as server:
        with attacked(server.port, "messages") as attacker:
            assert until(lambda: attacker.blocks, 2)
            server.stop()
            server.thread.join(2)
            assert not server.thread.is_alive()
        assert talk.codes == [1012]
        assert "drain_cut" not in server.counted
