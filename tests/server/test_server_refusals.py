"""What the server answers itself, as a problem that can be quoted; and the targets that it does take."""

import json
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service import errors
from service.http.problems import problem
from tests.server.server_threads import LOOPS, ours
from tests.server.slow_clients import GET, connect, handshake, parsed, response, status, until, until_closed

every_loop = pytest.mark.parametrize("loop", LOOPS)


async def show(request: Request) -> JSONResponse:
    return JSONResponse({"path": request.url.path, "query": request.url.query, "host": request.headers["host"]})


async def size(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


app = Starlette(routes=[Route("/", size, methods=["POST"]), Route("/{path:path}", show)])


def head(rest: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + rest + b"\r\n\r\n"


REFUSED = {
    "garbage": (b"garbage\r\n\r\n", 400, "bad-request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
    "a bad target": (b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n", 400, "bad-request"),
    "a bad handshake": (handshake().replace(b"Version: 13", b"Version: 12"), 400, "bad-request"),
    "a head of 20 KB": (head(b"Host: test\r\nX-Large: " + b"x" * 20_000), 431, "headers-too-large"),
    "an endless head": (head(b"Host: test\r\nX-Large: " + b"x" * 100_000), 431, "headers-too-large"),
    "an unknown coding": (head(b"Host: test\r\nTransfer-Encoding: gzip"), 501, "not-implemented"),
    "version 9.9": (b"GET / HTTP/9.9\r\nHost: test\r\n\r\n", 505, "http-version"),
}


def check_problem(answer: bytes, expected_status: int, code: str) -> dict[str, Any]:
    """Check the answer; returns the document."""
    fields, _, body = answer.partition(b"\r\n\r\n")
    lines = fields.decode().lower().split("\r\n")
    document: dict[str, Any] = json.loads(body)
    assert (
        list(document) == list(problem(errors.BadRequest(), "")) == ["type", "title", "status", "detail", "request_id"]
    )
    assert (document["type"], document["status"]) == (f"urn:atp:problem:{code}", expected_status)
    assert document["title"]
    assert document["detail"]
    assert re.fullmatch("[0-9a-f]{32}", document["request_id"])
    assert f"x-request-id: {document['request_id']}" in lines
    assert {"content-type: application/problem+json", f"content-length: {len(body)}", "connection: close"} <= set(lines)
    return document


@every_loop
@pytest.mark.parametrize(("request_bytes", "expected", "code"), REFUSED.values(), ids=REFUSED)
def test_a_refused_request_is_answered_with_a_problem_and_counted(
    request_bytes: bytes, expected: int, code: str, loop: str
) -> None:
    with ours(app, loop) as server:
        ids = set()
        for _ in range(2):
            with connect(server.port) as sock:
                sock.sendall(request_bytes)
                answer = until_closed(sock)
            assert answer.startswith(b"HTTP/1.1 %d" % expected)
            ids.add(check_problem(answer, expected, code)["request_id"])
        assert len(ids) == 2
        assert server.counted == ["request_refused"] * 2


def test_a_bad_request_has_the_title_that_the_application_gives_it() -> None:
    with ours(app) as server, connect(server.port) as sock:
        sock.sendall(b"garbage\r\n\r\n")
        assert check_problem(until_closed(sock), 400, "bad-request")["title"] == errors.BadRequest.title


def test_a_refused_head_request_gets_no_body() -> None:
    with ours(app) as server, connect(server.port) as sock:
        sock.sendall(b"HEAD * HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = until_closed(sock)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"\r\nx-request-id: " in answer
        assert answer.endswith(b"\r\n\r\n")


@every_loop
def test_a_connection_over_the_cap_is_told_overloaded_and_when_to_come_back(loop: str) -> None:
    with ours(app, loop, max_connections=1) as server, connect(server.port):
        assert until(lambda: server.server.connections == 1, 1)
        with connect(server.port) as other:
            other.sendall(GET)
            answer = until_closed(other)
        check_problem(answer, 503, "overloaded")
        assert b"\r\nretry-after: 1\r\n" in answer.lower()
        assert server.counted == ["connection_refused"]


@every_loop
@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://other:81/a/b?c=d", "/a/b", "c=d"),
        (b"HTTPS://other:81?c=http://x/", "/", "c=http://x/"),
        (b"http://other:81", "/", ""),
    ],
)
def test_an_absolute_form_target_is_taken_for_its_path_and_its_host(
    target: bytes, path: str, query: str, loop: str
) -> None:
    with ours(app, loop) as server, connect(server.port) as sock:
        sock.sendall(GET.replace(b"/", target, 1))
        assert parsed(response(sock)) == {"path": path, "query": query, "host": "other:81"}
        assert server.counted == []


def test_a_connection_cut_in_the_middle_of_a_request_is_counted_and_an_idle_one_is_not() -> None:
    with ours(app, header_deadline_s=0.2, body_gap_s=0.2, keep_alive_s=0.2) as server:
        assert status(server.port, GET) == 200
        with connect(server.port) as idle:
            idle.sendall(GET)
            until_closed(idle)
        assert server.counted == []
        for started in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nabc"):
            server.counted.clear()
            with connect(server.port) as sock:
                sock.sendall(started)
                until_closed(sock)
            assert until(lambda: server.counted == ["deadline"], 1), started
