"""One listening socket: binding it, taking connections from it, refusing the excess, and letting all of them go."""

import asyncio
import errno
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import cast
from wsgiref.handlers import format_date_time

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from service.server.calls import AsgiApp
from service.server.connection import Connection
from service.server.limits import Limits
from service.server.refusals import refusal_bytes
from service.server.sockets import ClientReader

ACCEPT_BURST = 64  # connections taken per turn of the loop; asyncio would take a whole backlog, and stall the rest
SPARE_FILES = 512  # for PostgreSQL, Redis, upstream calls and the private listener, whatever the public port suffers
REFUSALS = 128  # told 503 at the same time; beyond it an excess connection is just dropped
UNSENT_BYTES = 131_072
ACCEPTED_S = 0.02  # asyncio needs some turns from the accept to our callback
CANCEL_S = 2.0  # for what is cancelled at the end of the drain to clean up


class PortTaken(Exception):
    """A port cannot be listened on. The message is one line, with the way out, for the person who starts ATP."""


class HypercornConfig(Config):
    """Hypercorn's settings, with the Date header formatted once a second."""

    _date = (0, b"")

    def __init__(self, header_bytes: int, websocket_message_bytes: int) -> None:
        self.h11_max_incomplete_size = header_bytes
        self.websocket_max_message_size = websocket_message_bytes
        self.accesslog = self.errorlog = None  # both are ours

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now = int(time())
        if self._date[0] != now:
            self._date = now, format_date_time(now).encode("ascii")
        return [(b"date", self._date[1])]


class Listener:
    """One listening socket and the connections that came through it."""

    def __init__(
        self, app: AsgiApp, sock: socket.socket, limits: Limits, config: Config, count: Callable[[str], None]
    ) -> None:
        self.app = app
        self.config = config
        self.context = WorkerContext(None)
        self.limits = limits
        self.count = count
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._most = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refusals: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._connections)

    async def open(self, backlog: int, max_connections: int) -> None:
        self._most = max_connections
        tune(self._sock, self.limits.unacknowledged_s)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._client_streams, sock=self._sock, backlog=ACCEPT_BURST)
        self._sock.listen(backlog)  # again: asyncio takes one number for the queue and for the burst

    def _client_streams(self) -> asyncio.StreamReaderProtocol:
        """As `asyncio.start_server` makes them, with a reader of our own."""
        return asyncio.StreamReaderProtocol(ClientReader(), self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._most:
            self._refuse(reader, writer)
            return
        connection = Connection(self, cast(ClientReader, reader), writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count("connection_refused")
        if len(self._refusals) >= REFUSALS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(say_refused(reader, writer))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    async def stop_accepting(self) -> None:
        """Take what is already in the kernel's queue, then close: closing alone would reset those clients."""
        await self.context.terminated.set()
        self._sock.listen(0)  # no more into the queue: a client that comes now tries again a second later
        queue = select.poll()
        queue.register(self._sock, select.POLLIN)
        while queue.poll(0):  # noqa: ASYNC110 - there is no event for it; each turn of the loop takes a burst
            await asyncio.sleep(0)
        await asyncio.sleep(ACCEPTED_S)
        if self._server is not None:
            await self._take_the_last(self._server)
        for connection in list(self._connections.values()):
            await connection.retire()

    async def _take_the_last(self, server: asyncio.Server) -> None:
        """Close, but take what came since the loop last looked: on a busy machine that may be a while ago.

        A duplicate keeps the kernel's queue until it was seen empty; closing it then loses nobody but who comes within
        those few microseconds.
        """
        loop, queue = asyncio.get_running_loop(), self._sock.dup()
        server.close()
        accepted = []
        with queue, suppress(BlockingIOError):
            while True:
                accepted.append(queue.accept()[0])
        for sock in accepted:
            sock.setblocking(False)
            await loop.connect_accepted_socket(self._client_streams, sock)

    async def finish(self, within_s: float) -> int:
        """Wait for the connections to end; cut those that have not after `within_s`, and say how many that were."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._connections and loop.time() < end:
            await asyncio.wait(list(self._connections), timeout=end - loop.time())
        left = dict(self._connections)
        for task, connection in left.items():
            connection.abort()
            task.cancel()
        if left:
            await asyncio.wait(list(left), timeout=CANCEL_S)
        return len(left)

    async def close(self) -> None:
        """Nothing is left of it afterwards, also when it never came to a drain."""
        if self._server is not None:
            self._server.close()
        self._sock.close()
        await self.finish(0)


async def say_refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(refusal_bytes(503))
        async with asyncio.timeout(1):
            await reader.read(65_536)  # what is left unread would turn our close into a reset
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


def bind_socket(host: str, port: int, reuse_port: bool, setting: str) -> socket.socket:
    """Bind, without listening yet. Raises PortTaken; `setting` is the name of the setting that holds the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise PortTaken(why_not(error, host, port, setting)) from error
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise PortTaken(why_not(error, host, port, setting)) from error
    sock.setblocking(False)
    return sock


def tune(sock: socket.socket, unacknowledged_s: float) -> None:
    """Options that every accepted connection inherits."""
    # At most so many unsent bytes in the kernel: what stalls is soon seen to stall, and holds little memory.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    # What is sent and not acknowledged is given up as well: a phone that vanished, a window shut for good.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1_000 * unacknowledged_s))


def why_not(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program; stop it or set {setting}={port + 1}"
    if error.errno == errno.EACCES:
        return f"port {port} needs root; set {setting} to one above 1023"
    host_setting = setting.replace("PORT", "HOST")
    return f"cannot listen on {host} port {port}: {error.strerror}; set {host_setting} to an address of this machine"


def most_connections(wanted: int) -> int:
    """As many of `wanted` as the process may open files for, SPARE_FILES aside (the soft limit is raised first)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - SPARE_FILES)
