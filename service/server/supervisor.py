"""`atp serve --processes N`: N processes share the public port, and process i has the private port + i.

A process that ends is started again; SIGTERM or Ctrl-C drains them all; SIGHUP replaces them one by one.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from service.server.listener import bind_socket
from service.settings import Settings

log = structlog.get_logger("supervisor")

PR_SET_PDEATHSIG = 1  # prctl(2)
READY = b"GET /readyz HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\n\r\n"
ANSWER_TIMEOUT_S = 2.0
READY_POLL_S = 0.05
FIRST_PAUSE_S = 0.5  # before the second restart; the first comes at once

libc = ctypes.CDLL(None)  # loaded before any fork


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """Ports, and how patient to be; seconds."""

    processes: int
    host: str = "127.0.0.1"
    port: int = 8000
    private_host: str = "127.0.0.1"
    private_port: int = 9000
    stop_s: float = 30.0  # between SIGTERM and SIGKILL
    ready_s: float = 60.0  # for a replaced process to be ready, before the next one is replaced
    lived_s: float = 30.0  # a process that lived so long is not failing: its next restart comes at once
    longest_pause_s: float = 30.0


class Child:
    """One process, kept running until it is told to stop."""

    def __init__(self, index: int, command: Sequence[str], config: SupervisorConfig) -> None:
        self._index = index
        self._command = command
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._replacing = False
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Run the process, again and again, with a growing pause while it does not live long."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._run()
            lived_s = loop.time() - began
            if self._stopping.is_set():
                return
            if self._replacing or lived_s >= self._config.lived_s:
                pause_s = 0.0
            self._replacing = False
            log.warning("supervisor.child_ended", index=self._index, code=code, lived_s=lived_s, restart_in_s=pause_s)
            await self._pause(pause_s)
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), self._config.longest_pause_s)

    async def _run(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then tells the rest
            preexec_fn=die_with(os.getpid()),
        )
        log.info("supervisor.child_started", index=self._index, pid=self._process.pid)
        if self._stopping.is_set():  # told while it was being started
            self._process.terminate()
        return await self._process.wait()

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def stop(self) -> None:
        self._stopping.set()
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def replace(self) -> bool:
        """Drain the process and wait for its successor; whether that one became ready in time."""
        before = self._process
        self._replacing = True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._config.stop_s + self._config.ready_s):
                while True:
                    if self._process is not before and await self._is_ready():
                        return True
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            return False

    async def _is_ready(self) -> bool:
        config = self._config
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(config.private_host, config.private_port + self._index)
                try:
                    writer.write(READY)
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


def die_with(parent: int) -> Callable[[], None]:
    """What a child does before its program starts: ask the kernel to be killed when `parent` dies, however it dies."""

    def between_fork_and_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return between_fork_and_exec


class Supervisor:
    """Runs `command(index)` for every index; `run` returns the exit code once all have ended."""

    def __init__(self, command: Callable[[int], Sequence[str]], config: SupervisorConfig) -> None:
        self._config = config
        self._children = [Child(index, command(index), config) for index in range(config.processes)]
        self._stop = asyncio.Event()
        self._replace = asyncio.Event()

    async def run(self) -> int:
        """Raises PortTaken."""
        with reserve_port(self._config):
            self._listen_to_signals()
            keepers = [asyncio.create_task(child.keep()) for child in self._children]
            replacer = asyncio.create_task(self._replace_on_request())
            await self._stop.wait()
            replacer.cancel()
            for child in self._children:
                child.stop()
            _, late = await asyncio.wait(keepers, timeout=self._config.stop_s)
            if late:
                log.warning("supervisor.killing", processes=len(late))
                self._kill()
                await asyncio.wait(late)
            return 1 if late else 0

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._replace.set)

    def _interrupt(self) -> None:
        if self._stop.is_set():
            self._kill()
        self._stop.set()

    def _kill(self) -> None:
        for child in self._children:
            child.send(signal.SIGKILL)

    async def _replace_on_request(self) -> None:
        while True:
            await self._replace.wait()
            self._replace.clear()
            for child in self._children:
                if not await child.replace():
                    log.error("supervisor.replacing_given_up")  # the others still run, as they were
                    break


def reserve_port(config: SupervisorConfig) -> socket.socket:
    """Keep the public port ours (bound, never listening) while children come and go; raises PortTaken."""
    # SO_REUSEPORT alone would let us in beside another program that set it too, and share its connections.
    bind_socket(config.host, config.port, False, "PORT").close()
    return bind_socket(config.host, config.port, True, "PORT")


async def supervise(settings: Settings, processes: int) -> int:
    """`atp serve --processes N`; returns the exit code."""
    config = SupervisorConfig(
        processes=processes,
        host=settings.host,
        port=settings.port,
        private_host=settings.private_host,
        private_port=settings.private_port,
    )
    log.info("supervisor.started", processes=processes, port=config.port)
    return await Supervisor(
        lambda index: [sys.executable, "-m", "service", "serve", "--index", str(index)], config
    ).run()
