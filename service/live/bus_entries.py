"""The words of the bus: a place in the stream, an entry, what became of a message."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.errors import BadRequest, StateUnavailable
from service.live.messages import AnyMessage, Push, encode

# A Redis stream id: two unsigned 64-bit numbers (https://redis.io/docs/latest/develop/data-types/streams/#entry-ids).
SEQ = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
LARGEST = 2**64 - 1


class Seq(NamedTuple):
    """A place in the stream: Unix milliseconds of the server's clock, and a number among those of the same one."""

    ms: int
    n: int = 0

    @classmethod
    def parse(cls, text: str) -> "Seq":
        """Raises BadRequest for anything that no stream would have given."""
        found = SEQ.fullmatch(text)
        seq = cls(int(found[1]), int(found[2])) if found else cls(LARGEST + 1)
        if max(seq) > LARGEST:
            raise BadRequest("That is no sequence number of ours.")
        return seq

    def before(self) -> "Seq":
        """The place just before, which need not have an entry."""
        return Seq(self.ms, self.n - 1) if self.n else Seq(self.ms - 1, LARGEST)

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in its place, as it is handed to the sockets of this node."""

    seq: str | None  # None when this node delivers alone because Redis is away
    message: AnyMessage
    local_tick: int | None = None  # the tick of that delivery, when the message comes back by the stream


@dataclass(frozen=True, slots=True)
class MissedPush(Entry):
    """An entry that a client may ask for when it comes back."""

    seq: str
    message: Push


@dataclass(frozen=True)
class Published:
    """`degraded`: so far only this node's sockets have it; the others get it when Redis is back."""

    seq: str | None
    degraded: bool


# Gives the sockets an entry and returns the hub's tick: a number that grows with every socket that joins.
Deliver = Callable[[Entry], Awaitable[int]]
OnGap = Callable[[], Awaitable[None]]


class Outgoing:
    """A message on its way to the stream; `seq` is its place there once it has one."""

    __slots__ = ("data", "deferred", "failure", "message", "sent_s", "seq")

    def __init__(self, message: AnyMessage) -> None:
        """Raises ValueError for a message larger than messages.MESSAGE_BYTES."""
        self.message, self.data = message, encode(message)
        self.seq: Seq | None = None
        self.sent_s = 0.0  # on the monotonic clock
        self.failure: StateUnavailable | None = None
        self.deferred = False  # its publisher waits no longer: this node has delivered it alone


class Channel(Protocol):
    """Where a message is published: the stream, or the sockets of this node alone. Twice is harmless."""

    async def publish(self, outgoing: Outgoing) -> Published: ...
