"""How sessions lie in Redis: the shard of a user, the names of keys, a session in one short text, a recount."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.devices import DEVICES
from service.presence.sessions import SEPARATOR, Change, Session, rest_counter

T = TypeVar("T")

BATCH = 200  # sessions in one round trip: a few milliseconds of the server's time
REST = "rest"  # the owner of REST sessions: their heartbeats reach any node


@dataclass(frozen=True)
class Recount:
    """`drift`: how far counters are from what they count. `held`: sockets by owner."""

    drift: int = 0
    held: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, counters: Counter[str], users: int, ends: int, rest: int, held: Counter[str]) -> "Recount":
        """From a shard's counters, and the sizes of its users, ends of REST sessions, REST sessions and owners."""
        sessions = sum(counters[device] for device in DEVICES)
        drift = abs(sessions - sum(held.values()) - rest) + abs(counters["users"] - users) + abs(ends - rest)
        return cls(drift + abs(sum(counters[rest_counter(device)] for device in DEVICES) - rest), held)

    def __add__(self, other: "Recount") -> "Recount":
        return Recount(self.drift + other.drift, self.held + other.held)


def key(shard: int) -> str:
    return f"atp:{{presence:{shard}}}"


def shard_of(user_id: str, shards: int) -> int:
    return zlib.crc32(user_id.encode()) % shards


def arguments(change: Change) -> tuple[str, str, int]:
    """A change as change.lua reads it."""
    if change.lives_ms is None:
        return change.session.session_id, "", 0
    return change.session.session_id, packed(change.session), change.lives_ms


def packed(session: Session) -> str:
    """Short, since there is one for each session. A REST session's id has the user, and its end says enough of when."""
    if session.kind == "rest":
        return session.device[0] + session.client_id
    return SEPARATOR.join([session.device[0], str(session.since_s), session.client_id, session.user_id])


def pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """A script's list of name, value, name, value… as pairs."""
    return zip(flat[::2], flat[1::2], strict=True)


def counter(flat: Sequence[Any]) -> Counter[str]:
    return Counter({name.decode(): int(value) for name, value in pairs(flat)})


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def together(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All at the same time, and no call outlives this one; then the first failure is raised, if there was one."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found
