"""HTTP through the server: what plain hypercorn 0.18 lets a client do, and that ours does not."""

import asyncio
import threading
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.server.server_threads import LOOPS, ours, plain
from tests.server.slow_clients import (
    GET,
    connect,
    parsed,
    response,
    status,
    until_closed,
)

every_loop = pytest.mark.parametrize("loop", LOOPS)

H2C = (
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"method": request.method})


async def size(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def too_large(request: Request) -> Response:
    return Response(status_code=413)


app = Starlette(
    routes=[
        Route("/", hello),
        Route("/size", size, methods=["POST"]),
        Route("/large", too_large, methods=["POST"]),
    ]
)


@every_loop
def test_h2c_is_ignored_and_the_request_answered_as_http_1(loop: str) -> None:
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(H2C)
        assert parsed(response(sock)) == {"method": "GET"}


@every_loop
def test_an_answer_before_the_body_came_says_that_the_connection_closes(loop: str) -> None:
    with ours(app, loop) as server:
        with connect(server.port) as sock:
            sock.sendall(b"POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n")
            assert b"\r\nconnection: close\r\n" in until_closed(sock).lower()
        with connect(server.port) as sock:
            for _ in range(2):
                sock.sendall(b"POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody")
                answer = response(sock)
                assert answer.status == 413
                assert answer.headers["connection"] is None
                answer.read()


@every_loop
def test_the_http_2_preface_is_an_unsupported_version(loop: str) -> None:
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(PREFACE)
        assert until_closed(sock).startswith(b"HTTP/1.1 505")


def test_plain_hypercorn_switches_to_http_2() -> None:
    with plain(app) as server:
        with connect(server.port) as sock:
            sock.sendall(H2C)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 101")
        with connect(server.port) as sock:
            sock.sendall(PREFACE)
            assert sock.recv(65_536)[3:4] == b"\x04"  # a SETTINGS frame


BAD = {
    "an absolute-form of another scheme": (b"GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    "an absolute-form with a user": (b"GET http://me@test/ HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    "authority-form": (b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two lengths": (b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "an unknown coding": (b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "a broken chunk": (b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a head of 20 KB": (b"GET / HTTP/1.1\r\nHost: a\r\nX-Large: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    "an endless head": (b"GET / HTTP/1.1\r\nHost: a\r\nX-Large: " + b"x" * 100_000, 431),
    "version 9.9": (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
}


@every_loop
@pytest.mark.parametrize(("request_bytes", "expected"), BAD.values(), ids=BAD)
def test_a_bad_request_is_answered_and_closed(request_bytes: bytes, expected: int, loop: str, capfd: Any) -> None:
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(request_bytes)
        answer = until_closed(sock)
        assert answer.startswith(b"HTTP/1.1 %d" % expected)
        assert answer.count(b"HTTP/1.1 %d" % expected) == 1
        assert server.counted == ["request_refused"]
    assert "Traceback" not in capfd.readouterr().err


def test_plain_hypercorn_takes_a_head_of_20_kb_and_routes_an_absolute_target_as_a_path() -> None:
    with plain(app) as server:
        assert status(server.port, BAD["a head of 20 KB"][0]) == 200
        assert status(server.port, b"GET http://test/ HTTP/1.1\r\nHost: test\r\n\r\n") == 404


@every_loop
def test_head_has_the_headers_of_get_and_no_body(loop: str) -> None:
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(GET.replace(b"GET", b"HEAD") + GET)
        head = response(sock, "HEAD")
        assert (head.status, head.getheader("content-length"), head.read()) == (200, "17", b"")


@every_loop
def test_pipelined_requests_are_answered_in_order(loop: str) -> None:
    post = b"POST /size HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(GET + post + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in until_closed(sock).split(b"HTTP/1.1 200")[1:]]
        assert bodies == [b'{"method":"GET"}', b'{"bytes":3}', b'{"method":"GET"}']


def test_expect_100_continue_is_answered_before_the_body_is_sent() -> None:
    with ours(app) as server, connect(server.port) as sock:
        sock.sendall(b"POST /size HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert sock.recv(1024).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        assert parsed(response(sock)) == {"bytes": 3}


def test_http_1_0_is_answered_and_closed() -> None:
    with ours(app) as server, connect(server.port) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert until_closed(sock).endswith(b'{"method":"GET"}')


@every_loop
def test_an_answer_before_the_body_is_read_arrives(loop: str) -> None:
    head = b"POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n"
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(head + b"x" * 1_000_000)
        assert until_closed(sock).startswith(b"HTTP/1.1 413")


def test_an_answer_after_ten_unread_chunks_arrives_too_and_in_plain_hypercorn_never() -> None:
    full = threading.Event()

    async def late(request: Request) -> Response:
        await asyncio.to_thread(full.wait)
        return Response(status_code=413)

    late_app = Starlette(routes=[Route("/", late, methods=["POST"])])
    chunks = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50
    with ours(late_app) as server, connect(server.port) as sock:
        sock.sendall(chunks)
        full.set()
        assert until_closed(sock).startswith(b"HTTP/1.1 413")
    full.clear()
    with plain(late_app) as server, connect(server.port) as sock:
        sock.sendall(chunks)
        time.sleep(0.1)
        full.set()
        sock.settimeout(0.5)
        assert response(sock).status == 413  # said, but both tasks then wait for each other
        with pytest.raises(TimeoutError):
            sock.recv(1)


@every_loop
def test_an_application_that_fails_is_answered_500_and_counted(loop: str) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("boom")

    with ours(fails, loop) as server:
        assert status(server.port, GET) == 500
        assert server.counted == ["app_failed"]


@every_loop
def test_an_application_that_fails_in_its_body_is_seen_as_a_cut_answer(loop: str) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("boom")

    with ours(fails, loop) as server, connect(server.port) as sock:
        sock.sendall(GET)
        answer = until_closed(sock)
        assert answer.endswith(b"half\r\n")  # and no last chunk
        assert server.counted == ["app_failed"]


@every_loop
def test_an_application_that_sends_less_than_it_announced_only_loses_its_connection(loop: str) -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half"})

    with ours(short, loop) as server, connect(server.port) as sock:
        sock.sendall(GET)
        assert until_closed(sock).endswith(b"half")
        assert server.counted == ["app_failed"]


def test_a_head_is_sent_before_a_body_that_takes_its_time() -> None:
    body = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.to_thread(body.wait)
        await send({"type": "http.response.body", "body": b"late"})

    with ours(slow) as server, connect(server.port) as sock:
        sock.sendall(GET)
        answer = response(sock)
        assert answer.status == 200
        body.set()
        assert answer.read() == b"late"
