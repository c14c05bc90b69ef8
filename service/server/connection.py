"""One client connection: read, answer, and let go of what stalls, idles, floods or never sends.

`Connection` owns the transport and its deadlines; `service.server.protocol` speaks HTTP and WebSocket on it.
Hypercorn's own TCPServer is not used: it has one idle task per request, no write deadline, and waits for ever to close.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

import h11
import structlog
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import AppWrapper

from service.server.calls import AsgiApp, Calls
from service.server.limits import Limits
from service.server.protocol import HttpProtocol, Wire
from service.server.sockets import ClientReader, address, open_socket, unacknowledged_bytes

log = structlog.get_logger("server")

READ_BYTES = DRAIN_ABOVE_BYTES = 65_536  # the latter is asyncio's own mark: below it a write never has to wait
LINGER_NONE = struct.pack("ii", 1, 0)
LINGER_S = 2.0
LINGER_BYTES = 1_048_576  # read and thrown away while the client, still sending, is given time to read why it is closed


class Host(Protocol):
    """What a connection needs from the listener that accepted it."""

    app: AsgiApp
    config: Config
    context: WorkerContext
    limits: Limits
    count: Callable[[str], None]


class Connection(Wire):
    """Runs until the client has gone and every application call on it has ended."""

    def __init__(self, host: Host, reader: ClientReader, writer: asyncio.StreamWriter) -> None:
        self._limits = host.limits
        self._loop = asyncio.get_running_loop()
        self._reader, self._writer = reader, writer
        self._transport = writer.transport
        self.unread = writer.transport.get_write_buffer_size  # bytes that the client has not taken yet
        self._calls = Calls(host.count)
        self._held = b""
        self._written_bytes = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stalled_looks = 0
        self._deadline: float | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._owed = False  # whether the client is in the middle of a request, or owes us its first
        self._head_begun = True  # a fresh connection owes us a request at once
        self._closing = False
        self.context = host.context
        self.count = host.count
        self.addresses = address(writer, "peername"), address(writer, "sockname")
        self._protocol = HttpProtocol(cast(AppWrapper, host.app), host.config, self, self._calls)
        reader.on_end = self._protocol.stop_reading
        if reader.ended:
            self._protocol.stop_reading()
        if self._draining:
            self._expect(self._limits.retire_s)
        else:
            self._expect(self._limits.header_deadline_s, owed=True)

    @property
    def _draining(self) -> bool:
        return self.context.terminated.is_set()

    async def run(self) -> None:
        try:
            async with self._calls:
                await self._read()
        except* Exception:
            self.count("connection_failed")
            log.exception("server.connection_failed")
        finally:
            await self._gone()

    def abort(self) -> None:
        """Drop what is not sent yet, in the kernel too (SO_LINGER 0: a RST), and free the socket now."""
        if (sock := open_socket(self._writer)) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self._transport.abort()

    async def retire(self) -> None:
        """Draining: a request in progress finishes, an idle connection may send one more for `retire_s`."""
        if self._protocol.stream is None and not self._closing:
            self._expect(self._limits.retire_s)
        else:
            await self._protocol.retire()

    async def send(self, event: Event) -> None:
        """What hypercorn's protocol classes call: bytes to write, idle or busy, or the end."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Updated):
            self._head_begun = False
            idle_s = self._limits.retire_s if self._draining else self._limits.keep_alive_s
            self._expect(idle_s if event.idle else None)
        elif isinstance(event, Closed):
            self._close()

    def hold(self, head: bytes) -> None:
        """Send a response head together with its body, or at the end of this turn of the loop: one packet, not two."""
        self._held = head
        self._loop.call_soon(self._flush)

    def push(self, data: bytes) -> int:
        """Write without waiting; how many bytes the client has not taken yet."""
        self._held += data
        return self._flush()

    async def _write(self, data: bytes) -> None:
        if self.push(data) > DRAIN_ABOVE_BYTES:
            try:
                await self._writer.drain()
            except (ConnectionError, RuntimeError):
                await self._protocol.handle(Closed())
        elif self._transport.is_closing():
            await self._protocol.handle(Closed())
            await asyncio.sleep(0)  # an application that only sends would never let the loop tell it

    def _flush(self) -> int:
        """Hand what is held to the transport; how many bytes wait there."""
        data, self._held = self._held, b""
        if data and not self._closing and not self._transport.is_closing():
            self._transport.write(data)
            self._written_bytes += len(data)
        waiting = self.unread()
        if waiting and self._stall_timer is None:
            self._watch_writes(-1)
        return waiting

    def _watch_writes(self, taken_bytes: int) -> None:
        """Look twice a deadline whether the client takes anything, so that a stall is over within one and a half."""
        delay_s = self._limits.write_deadline_s / 2
        self._stall_timer = self._loop.call_later(delay_s, self._check_writes, taken_bytes)

    def _check_writes(self, taken_before: int) -> None:
        waiting = self.unread()
        taken = self._written_bytes - waiting - unacknowledged_bytes(self._writer)
        if not waiting:
            self._stall_timer = None
        elif taken > taken_before or self._stalled_looks == 0:
            self._stalled_looks = int(taken <= taken_before)
            self._watch_writes(taken)
        else:
            self.count("writer_stalled")
            log.warning("server.writer_stalled", waiting_bytes=waiting)
            self.abort()

    async def _receive(self) -> bytes:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as reset:  # by the client: as gone as after a FIN
            reset.with_traceback(None)  # the reader keeps it, and its frames would keep us alive
            return b""
        if len(data) == READ_BYTES:  # there may be more, and the next read would not let the loop turn
            await asyncio.sleep(0)
        return data

    async def _read(self) -> None:
        discarded_bytes = 0
        while data := await self._receive():
            if self._closing:
                discarded_bytes += len(data)
                if discarded_bytes > LINGER_BYTES:
                    break
                continue
            if self._protocol.connection.their_state is h11.SEND_BODY:
                self._deadline = None  # now it is the application that may be slow to take it
            await self._protocol.handle(RawData(data))
            if self._closing:
                await self._protocol.handle(Closed())
            else:
                self._expect_more()
        await self._protocol.handle(Closed())
        self._transport.close()  # the application may take its time to end; the socket need not wait for it

    def _expect_more(self) -> None:
        """After some bytes: how long until the next, by what the client has still to send."""
        state = self._protocol.connection.their_state
        if state is h11.SEND_BODY:
            self._expect(self._limits.body_gap_s, owed=True)
        elif state is h11.IDLE and self._protocol.connection.trailing_data[0]:
            if not self._head_begun:  # the deadline is for the whole head: one byte more does not renew it
                self._head_begun = True
                self._expect(self._limits.header_deadline_s, owed=True)
        elif state is not h11.IDLE:
            self._expect(None)

    def _expect(self, within_s: float | None, owed: bool = False) -> None:
        """Set the moment at which silence ends the connection. The timer is moved only when it would ring too late."""
        self._owed = owed
        self._deadline = None if within_s is None else self._loop.time() + within_s
        if self._deadline is None:
            return
        if self._deadline_timer is not None:
            if self._rings_at <= self._deadline:
                return
            self._deadline_timer.cancel()
        self._ring_at(self._deadline)

    def _ring_at(self, when: float) -> None:
        self._rings_at = when  # a handle of uvloop does not always know
        self._deadline_timer = self._loop.call_at(when, self._check_deadline)

    def _check_deadline(self) -> None:
        self._deadline_timer = None
        if self._deadline is not None and self._loop.time() < self._deadline:
            self._ring_at(self._deadline)
        elif self._deadline is not None:
            if self._owed and not self._transport.is_closing():
                self.count("deadline")
            self._transport.close()

    def _close(self) -> None:
        """Close; where the client may still be sending, first let it read our last words (413, 1009)."""
        if self._closing:
            return
        self._flush()
        self._closing = True
        self._protocol.stop_reading()
        if self._protocol.client_is_sending and not self._transport.is_closing():
            with suppress(OSError):  # closing with bytes unread would be a RST, and may destroy what is on its way
                self._writer.write_eof()
            self._expect(LINGER_S)
        else:
            self._transport.close()

    async def _gone(self) -> None:
        self._transport.close()
        try:
            await self._writer.wait_closed()  # bounded by _check_writes
        except OSError as reset:
            reset.with_traceback(None)  # as above
        for timer in filter(None, (self._stall_timer, self._deadline_timer)):
            timer.cancel()
        self._protocol.release()
