"""The sockets of this process: who is here, and reaching all of them, some of them, or letting them go.

Everything here runs on the loop and counts on it: between two awaits nothing joins or leaves.
"""

import asyncio
import random
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import Any, Protocol, cast

import structlog

from service.devices import DEVICES, Device
from service.live.bus_entries import Seq
from service.live.messages import Push
from service.live.places import Places, within
from service.live.protocol import Close, Gap, ServerMessage, frame_of
from service.live.socket import Socket

log = structlog.get_logger()

# Sockets written to before other work gets a turn: at about 7 us each a broadcast holds the loop for 2 ms.
BURST = 250
FRAMES_KEPT = 1024  # encoded once for the sockets here, and for those who come back and missed it
DRAIN_STEP_S = 0.05
BUSY_S = 10.0  # how long a chat under way may keep its socket when the node drains
RETRY_SPREAD_MS = 1_000  # a client comes back after a random part of this, at the least


class Observed(Protocol):
    """What the hub tells about its work."""

    def joined(self, device: Device) -> None: ...

    def left(self, device: Device) -> None: ...

    def sent(self, type_: str, messages: int, message_bytes: int) -> None: ...

    def dropped(self, reason: str) -> None: ...


def unheard(key_hash: bytes, ends_at: float | None) -> None:
    """Nobody asked to be told of the keys that hold a socket."""


class Hub:
    """`join` and `leave` by the task that serves a socket; the rest by the bus, administrators and the drain."""

    def __init__(self, places: Places, observed: Observed) -> None:
        self.places = places
        self._observed = observed
        self._sockets: dict[str, Socket] = {}
        self._by_user: defaultdict[str, set[Socket]] = defaultdict(set)
        self._frames: OrderedDict[str, bytes] = OrderedDict()
        self._ticks = 0
        self._draining: asyncio.Task[None] | None = None
        self._stopping = False
        self.on_held: Callable[[bytes, float | None], None] = unheard
        # The seq of the last push that every socket here has been sent.
        self.reached = ""

    def __len__(self) -> int:
        return len(self._sockets)

    @property
    def tick(self) -> int:
        """Grows with every socket that joins."""
        return self._ticks

    @property
    def draining(self) -> bool:
        """Whether new sockets are turned away."""
        return self._stopping or self._draining is not None

    def add(self, socket: Socket) -> None:
        """From now on it is closed with the others, and reached once it has joined."""
        self._sockets[socket.guest.session_id] = socket
        self._by_user[socket.guest.user_id].add(socket)
        self._observed.joined(socket.guest.device)
        self.on_held(socket.guest.key_hash, socket.guest.key_ends_at)

    def join(self, socket: Socket) -> None:
        """It is open, and knows all that was pushed by now."""
        self._ticks += 1
        socket.tick = self._ticks

    def leave(self, socket: Socket) -> None:
        del self._sockets[socket.guest.session_id]
        of_user = self._by_user[socket.guest.user_id]
        of_user.discard(socket)
        if not of_user:
            del self._by_user[socket.guest.user_id]
        self._observed.left(socket.guest.device)

    async def push(self, message: Push, seq: str | None, local_tick: int | None = None) -> int:
        """Send to the audience; returns the tick: sockets that joined by then had their chance.

        `local_tick` is that of an earlier delivery by this node alone: only a client that came back since may lack it.
        """
        place = Seq.parse(seq) if seq else None
        targets = list(self._audience(message))
        if local_tick is not None:
            targets = [socket for socket in targets if socket.tick > local_tick and socket.guest.last_seq]
        tick = self._ticks
        frame = self.frame(message, seq)
        for number, socket in enumerate(targets, 1):
            if place is None or place > socket.floor:
                self._send(socket, frame)
            if number % BURST == 0:
                await asyncio.sleep(0)
        self._observed.sent(message.type, len(targets), len(frame) * len(targets))
        self.reached = seq or self.reached
        return tick

    def _send(self, socket: Socket, frame: bytes) -> None:
        if dropped := socket.push(frame):
            self._observed.dropped(dropped)

    def queue_bytes(self) -> int:
        """What the sockets' readers have yet to take; may be asked from another thread."""
        return sum(socket.link.unread() for socket in list(self._sockets.values()))

    def queue_messages(self) -> int:
        """Those sent to sockets since their readers had last taken all; may be asked from another thread."""
        return sum(socket.behind for socket in list(self._sockets.values()) if socket.link.unread())

    def frame(self, message: Push, seq: str | None) -> bytes:
        """The same bytes for everybody; a push without `seq` came from this node alone while Redis was away."""
        if seq is None:
            return frame_of(as_sent(message))
        frame = self._frames.get(seq)
        if frame is None:
            frame = self._frames[seq] = frame_of(as_sent(message, seq=seq))
            if len(self._frames) > FRAMES_KEPT:
                self._frames.popitem(last=False)
        return frame

    def is_for(self, socket: Socket, message: Push) -> bool:
        """Whether it is in the audience."""
        in_users = message.users is None or socket.guest.user_id in message.users
        return in_users and (message.devices is None or socket.guest.device in message.devices)

    def _audience(self, message: Push) -> Iterable[Socket]:
        if message.users is None:
            return (s for s in self._sockets.values() if s.tick and self.is_for(s, message))
        found = (socket for user in message.users for socket in self._by_user.get(user, ()))
        return (socket for socket in found if socket.tick and self.is_for(socket, message))

    def matching(self, user_id: str, session_id: str | None = None) -> list[Socket]:
        """A user's sockets here, or the one of this session."""
        found = self._by_user.get(user_id, ())
        return [socket for socket in found if session_id in (None, socket.guest.session_id)]

    def count(self, user_id: str, session_id: str | None = None) -> int:
        return len(self.matching(user_id, session_id))

    def disconnect(self, user_id: str, session_id: str | None, code: Close, reason: str) -> int:
        """Close a user's sockets here, or one; how many there were."""
        found = self.matching(user_id, session_id)
        for socket in found:
            socket.close(code, reason)
        return len(found)

    def block(self, kind: str, subject: str, reason: str) -> None:
        """Close the sockets of a key (by its prefix), a user or a network that is kept out from now on."""
        for socket in self._blocked(kind, subject):
            socket.close(Close.BLOCKED, reason)

    def _blocked(self, kind: str, subject: str) -> list[Socket]:
        if kind == "user":
            return self.matching(subject)
        sockets = list(self._sockets.values())
        if kind == "key":
            return [socket for socket in sockets if socket.guest.key_prefix == subject]
        network = ip_network(subject)
        return [socket for socket in sockets if within(socket.guest.ip, network)]

    def key_hashes(self) -> set[bytes]:
        """The hashes of every API key that holds a socket here."""
        return self.places.keys()

    def holds(self, key_hash: bytes) -> bool:
        return self.places.holds(key_hash)

    def close_keys(self, ended: Mapping[bytes, str]) -> int:
        """Close the sockets of keys that are no longer good; how many there were."""
        found = [socket for socket in self._sockets.values() if socket.guest.key_hash in ended]
        for socket in found:
            socket.close(Close.KEY_ENDED, "the API key has ended")
        return len(found)

    async def tell_gap(self, position: str) -> None:
        """Tell everybody that pushes may have been lost before this place."""
        frame = frame_of(Gap(type="gap", seq=position or None))
        joined = [socket for socket in self._sockets.values() if socket.tick]  # the others will hear in their `ready`
        for number, socket in enumerate(joined, 1):
            self._send(socket, frame)
            if number % BURST == 0:
                await asyncio.sleep(0)

    def start_draining(self, rate: float) -> None:
        """Turn new sockets away and close those here at `rate` a second; asked again, the new rate counts."""
        self.stop_draining()
        self._draining = asyncio.create_task(self._drain(rate))

    def stop_draining(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None

    async def let_go(self, rate: float) -> None:
        """The node stops: as `start_draining`, and wait until the last one is gone; nothing takes it back."""
        self._stopping = True
        self.stop_draining()
        await self._drain(rate)

    async def _drain(self, rate: float) -> None:
        """Close every socket with 1012, in random order, and tell each when to come back; one with a chat under way may
        finish it first, for BUSY_S."""
        log.info("hub.draining", sockets=len(self._sockets), rate=rate)
        loop, allowance = asyncio.get_running_loop(), 0.0
        begun = loop.time()
        while self._sockets:
            allowance += rate * DRAIN_STEP_S
            patient = loop.time() < begun + BUSY_S
            living = [s for s in self._sockets.values() if not s.ended_by and not (patient and s.busy)]
            chosen = random.sample(living, min(int(allowance), len(living)))
            allowance -= len(chosen)
            for socket in chosen:
                socket.close(Close.RESTART, f"restart; retry_ms={random.randrange(RETRY_SPREAD_MS)}")  # noqa: S311
            await asyncio.sleep(DRAIN_STEP_S)

    def stats(self) -> dict[str, Any]:
        """This node's sockets, for administrators and the node's card."""
        devices = Counter(socket.guest.device for socket in self._sockets.values())
        return {
            "sockets": len(self._sockets),
            "users": len(self._by_user),
            "devices": {device: devices[device] for device in DEVICES},
            "limit": self.places.caps.node,
            "draining": self.draining,
        }


def as_sent(message: Push, **place: str) -> ServerMessage:
    """A Broadcast or a Task, by its type."""
    return cast(ServerMessage, {"type": message.type, "id": message.id, **place, **message.payload})
