"""The supervisor with real processes: killed, drained, orphaned, replaced."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import psutil

from tests.ports import reserved_row
from tests.server.slow_clients import GET, HOST, connect, response, until

CHILD = """
import asyncio, os, sys
from service.server.server import Server, ServerConfig, ServerHooks, stop_on_signals

async def app(scope, receive, send):
    slow = scope["path"] == "/slow"
    pid = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await asyncio.sleep(3600 if scope["path"] == "/never" else slow * 1)
    await send({"type": "http.response.body", "body": pid})

async def main():
    config = ServerConfig(port=int(sys.argv[1]), private_port=int(sys.argv[2]) + int(sys.argv[3]), reuse_port=True)
    await Server(app, app, config).run(stop_on_signals())

asyncio.run(main())
"""

PARENT = """
import asyncio, sys
from service.server.listener import PortTaken
from service.server.supervisor import Supervisor, SupervisorConfig

port, private_port, stop_s, child = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]

async def main():
    config = SupervisorConfig(processes=2, port=port, private_port=private_port, stop_s=stop_s)
    return await Supervisor(lambda i: [sys.executable, "-c", child, str(port), str(private_port), str(i)], config).run()

try:
    sys.exit(asyncio.run(main()))
except PortTaken as error:
    sys.exit(str(error))
"""


def pid_serving(port: int) -> int:
    """Which process answers on `port`; 0 where none does."""
    try:
        with connect(port) as sock:
            sock.sendall(GET)
            return int(response(sock).read())
    except OSError:
        return 0


class Fleet:
    """A supervisor of two processes."""

    def __init__(self, parent: subprocess.Popen[str], port: int, private_port: int) -> None:
        self.parent = parent
        self.port = port
        self.private_ports = [private_port, private_port + 1]

    def pids(self) -> list[int]:
        return [pid_serving(port) for port in self.private_ports]

    def requests_on_both(self, path: str) -> dict[int, socket.socket]:
        """A request in progress on each process (the kernel chooses which connection goes where), by process."""
        waiting: dict[int, socket.socket] = {}
        while len(waiting) < 2:
            sock = connect(self.port)
            owner = self.owner(sock)
            if owner in waiting:
                sock.close()
                continue
            sock.sendall(GET.replace(b"/", path.encode(), 1))
            select.select([sock], [], [], 5)
            waiting[owner] = sock
        return waiting

    def owner(self, sock: socket.socket) -> int:
        ours = sock.getsockname()[1]
        found: list[int] = []

        def search() -> bool:
            for pid in self.pids():
                connections = psutil.Process(pid).net_connections("tcp")
                found.extend(pid for c in connections if c.raddr and c.raddr.port == ours)
            return bool(found)

        assert until(search, 5)
        return found[0]


@contextmanager
def fleet(stop_s: float = 30) -> Iterator[Fleet]:
    with reserved_row(3) as port:  # the public one, and a private one for each process
        command = [sys.executable, "-W", "error", "-c", PARENT, str(port), str(port + 1), str(stop_s), CHILD]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
            running = Fleet(parent, port, port + 1)
            try:
                assert until(lambda: all(running.pids()), 10)
                yield running
            finally:
                parent.kill()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def read(answer: HTTPResponse) -> int:
    return int(answer.read())


def test_a_killed_process_is_back_and_serving_within_two_seconds() -> None:
    with fleet() as running:
        first, second = running.pids()
        os.kill(first, signal.SIGKILL)
        assert until(lambda: running.pids()[0] not in (0, first), 2)
        assert running.pids()[1] == second
        assert pid_serving(running.port) in running.pids()


def test_sigterm_drains_all_processes_and_exits_0() -> None:
    with fleet() as running:
        waiting = running.requests_on_both("/slow")
        running.parent.terminate()
        assert {pid: read(response(sock)) for pid, sock in waiting.items()} == {pid: pid for pid in waiting}
        for sock in waiting.values():
            sock.close()
        assert running.parent.wait(5) == 0
        assert all(is_gone(pid) for pid in waiting)


def test_a_process_that_does_not_end_is_killed_when_the_time_is_up() -> None:
    with fleet(stop_s=0.5) as running:
        waiting = running.requests_on_both("/never")
        running.parent.terminate()
        assert running.parent.wait(5) == 1
        assert all(is_gone(pid) for pid in waiting)
        for sock in waiting.values():
            sock.close()


def test_a_second_ctrl_c_kills_at_once() -> None:
    with fleet() as running:
        waiting = running.requests_on_both("/never")
        running.parent.send_signal(signal.SIGINT)
        assert until(lambda: pid_serving(running.port) == 0, 10)
        running.parent.send_signal(signal.SIGINT)
        assert running.parent.wait(10) == 0
        assert all(is_gone(pid) for pid in waiting)
        for sock in waiting.values():
            sock.close()


def test_no_process_outlives_a_killed_supervisor() -> None:
    with fleet() as running:
        pids = running.pids()
        running.parent.kill()
        assert until(lambda: all(is_gone(pid) for pid in pids), 2)


def test_sighup_replaces_the_processes_one_by_one_and_serves_meanwhile() -> None:
    with fleet() as running:
        before = running.pids()
        waiting = running.requests_on_both("/slow")
        running.parent.send_signal(signal.SIGHUP)
        seen: set[Any] = set()

        def all_new() -> bool:
            pids = running.pids()
            seen.add(pids.count(0))
            assert pid_serving(running.port) != 0
            return 0 not in pids and not set(pids) & set(before)

        assert until(all_new, 15)
        assert max(seen) <= 1
        assert {pid: read(response(sock)) for pid, sock in waiting.items()} == {pid: pid for pid in before}
        for sock in waiting.values():
            sock.close()


def test_a_public_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server((HOST, 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-c", PARENT, str(port), "1", "1", CHILD]
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=10)
        assert ended.stderr == f"port {port} is taken by another program; stop it or set PORT={port + 1}\n"
        assert ended.returncode == 1
