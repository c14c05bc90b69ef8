"""One live WebSocket: who is behind it, how it is written to, and how long it may be silent."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from service.devices import Device
from service.live.protocol import PING_FRAME, Close

# A timer that rings this late says that the whole process stood still, and that answers may wait unread in the kernel.
STALLED_S = 0.5
REASON_BYTES = 123  # of a close frame (RFC 6455, 5.5)


class Link(Protocol):
    """The connection under a socket, as the server gives it in `scope["state"]["link"]`."""

    on_pong: Callable[[], None]

    def push(self, frame: bytes) -> int: ...

    async def write(self, frame: bytes) -> None: ...

    async def shut(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...

    def unread(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: without a client message, between two pings, for a pong; and how many bytes may wait for a reader."""

    idle_s: float = 300.0
    ping_s: float = 25.0
    pong_s: float = 8.0
    # A reader this far behind is given up. In bytes, as that is what a slow reader costs: messages are 0.1 to 16 KB.
    queue_bytes: int = 262_144


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is behind a socket. `last_seq` is where a client that was here before wants to go on, or empty.

    `address` is what the cap on sockets counts as one client, `ip` the client's own address, empty where it has none.
    `key_ends_at`: when the key expires, on the monotonic clock; None: it does not.
    """

    session_id: str
    user_id: str
    key_hash: bytes
    device: Device
    address: str
    last_seq: str = ""
    key_prefix: str = ""
    ip: str = ""
    key_ends_at: float | None = None


class Socket:
    """Owned by the task that serves it.

    It is in the hub before its handshake is answered, so that whoever closes it meanwhile finds it; `open()` makes it
    ready to be written to, or carries out what was decided by then.
    """

    __slots__ = (
        "_loop",
        "_on_rtt",
        "_patience",
        "_ping_due",
        "_pinged_at",
        "_rings_at",
        "_timer",
        "_why",
        "behind",
        "busy",
        "closing",
        "ended_by",
        "floor",
        "guest",
        "last_message",
        "link",
        "opened",
        "tick",
    )

    def __init__(self, guest: Guest, link: Link, patience: Patience, on_rtt: Callable[[float], None]) -> None:
        self.guest, self.link, self._patience, self._on_rtt = guest, link, patience, on_rtt
        self._loop = asyncio.get_running_loop()
        self.busy = 0  # chats under way
        self.behind = 0  # messages since its reader had last taken all
        self.opened = False
        self._why = ""
        self.tick = 0  # the hub's count when it joined
        self.floor = (0, 0)  # pushes up to here are known to the client
        self.ended_by = ""  # our close code, or why we cut it; empty while it lives, or when the client ended it
        self.closing: asyncio.Task[None] | None = None
        now = self.last_message = self._loop.time()
        self._pinged_at = 0.0
        # Anywhere in the first interval, so that ten thousand that came together are not pinged together.
        self._ping_due = now + patience.ping_s * random.uniform(0.2, 1.0)  # noqa: S311 - spreading load
        self._set_timer(self._due())
        link.on_pong = self._pong

    def open(self) -> bool:
        """The handshake is answered; False where it was to be closed by then, which now begins."""
        self.opened = True
        if self.ended_by:
            self.closing = self._loop.create_task(self._shut(int(self.ended_by), self._why))
        return not self.ended_by

    def heard(self) -> None:
        """A message came: neither idle nor dead."""
        self.last_message = self._loop.time()
        self._alive(self.last_message)

    def push(self, frame: bytes) -> str:
        """Send without waiting; a reader that is too far behind is cut off, for its own good and everybody's. Why it
        will not arrive, one of labels.WS_DROPPED; empty where nothing speaks against it."""
        if self.ended_by:
            return "closing"
        unread = self.link.push(frame)
        self.behind = self.behind + 1 if unread else 0
        if unread > self._patience.queue_bytes:
            self.cut("slow_reader")
            return "slow_reader"
        return ""

    def cut(self, why: str) -> None:
        """End without a word: it is dead, or does not read."""
        self.ended_by = self.ended_by or why
        self.link.abort()

    def close(self, code: Close, reason: str) -> None:
        """Begin to close; done by a task of its own, for a slow client may keep it waiting."""
        if self.ended_by:
            return
        self.ended_by, self._why = str(int(code)), reason.encode()[:REASON_BYTES].decode(errors="ignore")
        if self.opened:
            self.closing = self._loop.create_task(self._shut(code, self._why))

    async def _shut(self, code: int, reason: str) -> None:
        with suppress(OSError):  # it left first
            await self.link.shut(code, reason)

    async def end(self) -> None:
        """Let go of everything, whoever ended it."""
        self._timer.cancel()
        self.link.on_pong = nothing
        if self.closing is not None:
            await asyncio.wait([self.closing])

    def _alive(self, now: float) -> None:
        self._pinged_at = 0.0
        self._ping_due = now + self._patience.ping_s

    def _pong(self) -> None:
        now = self._loop.time()
        if self._pinged_at:
            self._on_rtt(now - self._pinged_at)
        self._alive(now)

    def _due(self) -> float:
        idle = self.last_message + self._patience.idle_s
        return min(idle, self._pinged_at + self._patience.pong_s if self._pinged_at else self._ping_due)

    def _set_timer(self, rings_at: float) -> None:
        self._rings_at = rings_at  # for uvloop's handle does not always know
        self._timer = self._loop.call_at(rings_at, self._look)

    def _look(self) -> None:
        """Ring when something is due; messages only move what is due, never the timer."""
        now = self._loop.time()
        if now - self._rings_at > STALLED_S:
            self._set_timer(now + STALLED_S)  # first what waits in the kernel is read
            return
        if now >= self._due():
            self._act(now)
        if not self.ended_by:
            self._set_timer(self._due())

    def _act(self, now: float) -> None:
        if now >= self.last_message + self._patience.idle_s:
            self.close(Close.GOING_AWAY, "idle")
        elif self._pinged_at:
            self.cut("no_pong")
        else:
            self._pinged_at = now
            self.push(PING_FRAME)


def nothing() -> None:
    """Do nothing."""
