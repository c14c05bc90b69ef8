"""How long the server waits for a client, and for how many: stalled, trickling, silent, idle and gone ones."""

import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service.server.server import ServerConfig
from tests.server.server_threads import LOOPS, ours, plain
from tests.server.slow_clients import (
    GET,
    connect,
    is_established,
    is_open,
    reset,
    response,
    status,
    until,
    until_closed,
)

every_loop = pytest.mark.parametrize("loop", LOOPS)


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"method": request.method})


class Watched:
    """An application that only waits, and says when it is told that the client has gone."""

    def __init__(self) -> None:
        self.disconnected = threading.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected.set()


class Flood:
    """A body without end, until there is enough of it."""

    def __init__(self) -> None:
        self.enough = False
        self.app = Starlette(routes=[Route("/", self.answer)])

    async def answer(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.chunks())

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self.enough:
            yield b"x" * 65_536


app = Starlette(routes=[Route("/", hello)])


@every_loop
def test_a_client_that_goes_is_reported_to_the_application_at_once(loop: str) -> None:
    for leave in (lambda sock: sock.close(), reset, lambda sock: sock.shutdown(1)):
        watched = Watched()
        with ours(watched.app, loop) as server, connect(server.port) as sock:
            sock.sendall(GET)
            assert until(lambda: server.server.connections == 1, 1)
            leave(sock)
            assert watched.disconnected.wait(0.5)
            assert until(lambda: server.server.connections == 0, 1)
            assert server.counted == []


POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"
FOLLOWED = {
    "an empty line": POST + b"\r\n",
    "a second request": POST + GET,
    "64 KB": POST + b"x" * 65_536,
    "an upgrade that is ignored": GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
}


@every_loop
@pytest.mark.parametrize("sent", FOLLOWED.values(), ids=FOLLOWED)
@pytest.mark.parametrize("leave", [lambda sock: sock.close(), reset, lambda sock: sock.shutdown(1)])
def test_a_client_that_goes_is_reported_whatever_it_sent_after_its_request(leave: Any, sent: bytes, loop: str) -> None:
    for pause_s in (0, 0.1):  # gone before the request is read, or while it is being answered
        watched = Watched()
        with ours(watched.app, loop) as server, connect(server.port) as sock:
            sock.sendall(sent)
            time.sleep(pause_s)
            leave(sock)
            if pause_s or leave is not reset:  # a reset may destroy what it has not read yet
                assert watched.disconnected.wait(0.5)
            assert until(lambda: server.server.connections == 0, 1)
            assert server.counted == []


@every_loop
def test_bytes_sent_while_a_request_is_answered_are_read_until_the_buffers_are_full(loop: str) -> None:
    watched = Watched()
    with ours(watched.app, loop) as server, connect(server.port) as sock:
        sock.sendall(POST + GET)
        for _ in range(5):
            time.sleep(0.02)
            sock.sendall(GET)
        sock.close()
        assert watched.disconnected.wait(0.5)
        assert until(lambda: server.server.connections == 0, 1)


@every_loop
def test_a_stalled_http_reader_is_freed_at_the_write_deadline(loop: str) -> None:
    with ours(Flood().app, loop, write_deadline_s=0.4) as server, connect(server.port, 4096) as sock:
        sock.sendall(GET)
        assert until(lambda: not is_established(sock), 3)
        assert until(lambda: server.server.connections == 0, 1)
        assert server.counted == ["writer_stalled"]


def test_plain_hypercorn_keeps_a_stalled_http_reader() -> None:
    flood = Flood()
    with plain(flood.app) as server, connect(server.port, 4096) as sock:
        sock.sendall(GET)
        assert not until(lambda: not is_established(sock), 1.2)
        flood.enough = True  # once the client has gone, it would send for ever without letting the loop turn
        reset(sock)


@every_loop
def test_an_answer_that_is_never_read_does_not_hold_the_connection_open(loop: str) -> None:
    async def large(request: Request) -> Response:
        return Response(b"x" * 8_000_000, headers={"Connection": "close"})

    large_app = Starlette(routes=[Route("/", large)])
    with ours(large_app, loop, write_deadline_s=0.4) as server, connect(server.port, 4096) as sock:
        sock.sendall(GET)
        assert until(lambda: server.counted == ["writer_stalled"], 3)
        assert until(lambda: server.server.connections == 0, 1)


def trickle(port: int, for_s: float) -> float:
    """Send a head one byte at a time; after how many seconds the server closed (or `for_s`)."""
    began = time.monotonic()
    with connect(port) as sock:
        while time.monotonic() < began + for_s and is_open(sock):
            sock.sendall(b"G")
            time.sleep(0.02)
        return time.monotonic() - began


@every_loop
def test_a_head_that_trickles_is_cut_at_the_header_deadline(loop: str) -> None:
    with ours(app, loop, header_deadline_s=0.4) as server:
        assert 0.4 <= trickle(server.port, 3) < 1
        with connect(server.port) as sock:  # the second head on a connection no less
            sock.sendall(GET)
            assert response(sock).read() == b'{"method":"GET"}'
            sock.sendall(b"GET / HT")
            began = time.monotonic()
            assert until_closed(sock) == b""
            assert 0.3 < time.monotonic() - began < 1
    assert ServerConfig().header_deadline_s == 10.0


def test_plain_hypercorn_gives_a_head_its_keep_alive_time() -> None:
    with plain(app, keep_alive_timeout=75) as server:
        assert trickle(server.port, 1.2) >= 1.2


@every_loop
def test_a_body_that_falls_silent_is_cut(loop: str) -> None:
    watched = Watched()
    with ours(watched.app, loop, body_gap_s=0.4) as server, connect(server.port) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
        assert watched.disconnected.wait(1)
        assert until_closed(sock) == b""


@every_loop
def test_an_idle_connection_is_kept_for_its_keep_alive_time(loop: str) -> None:
    with ours(app, loop, keep_alive_s=0.8, header_deadline_s=0.2) as server, connect(server.port) as sock:
        sock.sendall(GET)
        response(sock).read()
        began = time.monotonic()
        assert until_closed(sock) == b""
        assert 0.7 < time.monotonic() - began < 1.5
    assert ServerConfig().keep_alive_s == 75.0


def test_a_connection_outlives_the_five_seconds_of_plain_hypercorn() -> None:
    with ours(app) as server, plain(app) as other, connect(server.port) as kept, connect(other.port) as cut:
        for sock in (kept, cut):
            sock.sendall(GET)
            response(sock).read()
        began = time.monotonic()
        cut.settimeout(8)
        assert until_closed(cut) == b""
        assert 4.9 < time.monotonic() - began < 7
        kept.sendall(GET)
        assert response(kept).status == 200


@every_loop
def test_too_many_connections_are_told_503_and_the_private_port_stays_alive(loop: str) -> None:
    with ours(app, loop, max_connections=2) as server, connect(server.port) as one, connect(server.port) as two:
        assert until(lambda: server.server.connections == 2, 1)
        with connect(server.port) as third:
            third.sendall(GET)
            answer = until_closed(third)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
        assert server.counted == ["connection_refused"]
        assert status(server.private_port, GET) == 200
        for sock in (one, two):
            sock.sendall(GET)
            assert response(sock).status == 200
