"""Listening, draining and ending: the server as a whole, as a process where the exit is what counts."""

import asyncio
import errno
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.server.listener import why_not
from service.server.server import PortTaken, Server, ServerConfig
from tests.server.server_threads import LOOPS, ours, plain, private_app
from tests.server.slow_clients import GET, HOST, connect, is_listening, reset, response, status, until, until_closed

every_loop = pytest.mark.parametrize("loop", LOOPS)

PROGRAM = """
import asyncio, sys, time, uvloop
from service.server.server import Server, ServerConfig, stop_on_signals

async def app(scope, receive, send):
    kind = scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30")]})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    if kind == "/never":
        await asyncio.sleep(3600)
    if kind == "/blocks":
        await asyncio.sleep(0.5)
        time.sleep(60)
    while kind == "/stubborn":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    for left in reversed(range(30 if kind == "/slow" else 1)):
        await asyncio.sleep(0.1 if kind == "/slow" else 0)
        await send({"type": "http.response.body", "body": b"x" * (1 if kind == "/slow" else 30), "more_body": left > 0})

async def main():
    config = ServerConfig(port=0, private_port=0, drain_s=float(sys.argv[2]), exit_s=float(sys.argv[3]))
    server = Server(app, app, config)
    print(server.port, server.private_port, flush=True)
    await server.run(stop_on_signals())

(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


@contextmanager
def process(loop: str, drain_s: float = 25, exit_s: float = 30) -> Iterator[tuple[Any, int, int]]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, loop, str(drain_s), str(exit_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            port, private_port = map(int, child.stdout.readline().split())
            assert until(lambda: is_listening(port), 5)
            yield child, port, private_port
        finally:
            child.kill()


def ask(port: int, path: str) -> socket.socket:
    """Send a request, and wait until the head of the answer shows that it is in progress."""
    sock = connect(port)
    sock.sendall(GET.replace(b"/", path.encode(), 1))
    select.select([sock], [], [], 5)
    return sock


@every_loop
def test_sigterm_lets_requests_finish_refuses_new_ones_and_exits_0(loop: str) -> None:
    with process(loop) as (child, port, private_port), connect(port) as idle:
        idle.sendall(GET)
        assert response(idle).read() == b"x" * 30
        with ask(port, "/slow") as slow:
            began = time.monotonic()
            child.terminate()
            assert until(lambda: not is_listening(port), 1)
            assert status(private_port, GET) == 200  # the private port is the last to close
            assert response(slow).read() == b"x" * 30  # three seconds of it
        assert child.wait(2) == 0
        assert 2.5 < time.monotonic() - began < 6
        assert "Traceback" not in child.stderr.read()


def test_an_idle_connection_does_not_hold_up_the_exit() -> None:
    with process("uvloop") as (child, port, _), connect(port) as idle, connect(port) as fresh:
        idle.sendall(GET)
        assert response(idle).read() == b"x" * 30
        child.terminate()
        assert child.wait(3) == 0
        assert until_closed(idle) == until_closed(fresh) == b""


@every_loop
def test_a_request_that_never_ends_is_cut_when_the_drain_is_over(loop: str) -> None:
    with process(loop, drain_s=0.5) as (child, port, _), ask(port, "/never") as sock:
        began = time.monotonic()
        child.terminate()
        assert child.wait(5) == 0
        assert 0.5 <= time.monotonic() - began < 3
        assert until_closed(sock).endswith(b"\r\n\r\n")
        assert "Traceback" not in child.stderr.read()


@pytest.mark.parametrize("path", ["/stubborn", "/blocks"])
def test_the_process_ends_even_where_a_handler_does_not_let_it(path: str) -> None:
    with process("uvloop", drain_s=0.2 if path == "/stubborn" else 25, exit_s=1) as (child, port, _), ask(port, path):
        began = time.monotonic()
        child.terminate()
        assert child.wait(4) == 1
        assert 1 <= time.monotonic() - began < 3


def test_a_drain_takes_25_seconds_and_the_exit_30_at_most_by_default() -> None:
    assert (ServerConfig().drain_s, ServerConfig().exit_s) == (25.0, 30.0)


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    with process("asyncio") as (child, port, _), ask(port, "/never"):
        child.send_signal(signal.SIGINT)
        assert until(lambda: not is_listening(port), 1)
        child.send_signal(signal.SIGINT)
        assert child.wait(1) == 130


@every_loop
def test_a_drain_switches_readiness_off_then_calls_the_hook_and_only_then_stops_listening(loop: str) -> None:
    seen: list[str] = []
    asked = threading.Event()

    async def on_drain() -> None:
        seen.append("hook")
        await asyncio.to_thread(asked.wait, 5)

    hooks = {"not_ready": lambda: seen.append("not ready"), "on_drain": on_drain}
    with ours(private_app, loop, hooks) as server:
        server.stop()
        assert until(lambda: seen == ["not ready", "hook"], 1)
        assert status(server.port, GET) == 200
        asked.set()
        assert until(lambda: not is_listening(server.port), 1)


@every_loop
def test_a_request_whose_client_has_long_gone_is_cut_too(loop: str) -> None:
    asked = threading.Event()

    async def ignores(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await asyncio.sleep(3600)

    with ours(ignores, loop, drain_s=0.3) as server:
        sock = connect(server.port)
        sock.sendall(GET)
        assert asked.wait(1)
        reset(sock)
        assert server.server.connections == 1
        server.stop()
        server.thread.join(2)
        assert not server.thread.is_alive()
    assert server.counted == ["drain_cut"]


def test_a_drain_goes_on_where_its_hook_fails() -> None:
    async def on_drain() -> None:
        raise ValueError("boom")

    with ours(private_app, hooks={"on_drain": on_drain}) as server:
        server.stop()
        server.thread.join(2)
        assert not server.thread.is_alive()


@every_loop
def test_a_request_that_was_queued_in_the_kernel_when_the_drain_began_is_answered(loop: str) -> None:
    blocked = threading.Event()

    async def block(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/block":
            blocked.set()
            time.sleep(0.4)  # noqa: ASYNC251 - the loop is to be blocked
        await PlainTextResponse("done")(scope, receive, send)

    with ours(block, loop) as server, connect(server.port) as blocking:
        blocking.sendall(GET.replace(b"/", b"/block", 1))
        assert blocked.wait(1)
        queued = [connect(server.port) for _ in range(150)]
        for sock in queued:
            sock.sendall(GET)
        server.stop()
        answers = [until_closed(sock) for sock in queued]
        for sock in queued:
            sock.close()
    assert {answer[-4:] for answer in answers} == {b"done"}
    assert all(b"connection: close" in answer.lower() for answer in answers)


def queued_connections(port: int, number: int) -> int:
    """How many of `number` connects the kernel completes while the server accepts none."""
    socks = [socket.socket() for _ in range(number)]
    done = select.poll()
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex((HOST, port))
        done.register(sock, select.POLLOUT)
    until(lambda: len(done.poll(0)) == number, 0.4)
    completed = len(done.poll(0))
    for sock in socks:
        sock.close()
    return completed


def test_a_burst_of_connections_waits_in_the_queue_and_in_plain_hypercorn_is_turned_away() -> None:
    for serving, completed in ((ours, 300), (plain, 101)):
        blocked = threading.Event()

        async def block(request: Request, blocked: threading.Event = blocked) -> PlainTextResponse:
            blocked.set()
            time.sleep(0.8)  # noqa: ASYNC251 - the loop is to be blocked
            return PlainTextResponse("done")

        with serving(Starlette(routes=[Route("/", block)])) as server, connect(server.port) as sock:
            sock.sendall(GET)
            assert blocked.wait(1)
            assert queued_connections(server.port, 300) == completed
    assert ServerConfig().backlog == 4096


def test_a_port_that_is_taken_is_said_in_one_line_with_the_way_out() -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        for settings, name in (({"port": port}, "PORT"), ({"port": 0, "private_port": port}, "PRIVATE_PORT")):
            with pytest.raises(PortTaken) as error:
                Server(private_app, private_app, ServerConfig(**settings)).bind()
            assert str(error.value) == (f"port {port} is taken by another program; stop it or set {name}={port + 1}")


def test_an_address_of_another_machine_is_said_in_one_line() -> None:
    with pytest.raises(PortTaken, match=r"^cannot listen on 192\.0\.2\.1 port 8000: .*; set HOST to"):
        Server(private_app, private_app, ServerConfig(host="192.0.2.1")).bind()


def test_a_port_that_needs_root_is_said_in_one_line() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied")
    assert why_not(refused, HOST, 80, "PORT") == "port 80 needs root; set PORT to one above 1023"
