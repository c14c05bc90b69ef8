"""The words of presence: a session, the counts, and the port that Redis and memory both implement."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from service.devices import DEVICES, Device

Kind = Literal["socket", "rest"]
Card = dict[str, Any]

# A REST client is online for this long after its last heartbeat.
REST_TTL_S = 60
# In the fleet. A person has a few devices, a program one session; a client that makes up ids shall not fill Redis.
REST_SESSIONS_PER_USER = 100
# A user's number is sockets + REST_WEIGHT * REST sessions: two counts in one field, so that a join stays one HINCRBY
# and a user's first session of either kind is the one that makes the number positive. No user has a million sockets.
REST_WEIGHT = 1_000_000
# Ids are printable, so none contains it.
SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of one client. Ids are printable and at most 128 characters; `since_s` in Unix seconds.

    A socket lives as long as its node; a REST session lives REST_TTL_S from its last heartbeat, on any node. Its id is
    `rest_id(…)`.
    """

    session_id: str
    user_id: str
    client_id: str
    device: Device
    since_s: int
    kind: Kind = "socket"


@dataclass(frozen=True, slots=True)
class Change:
    """What a session shall be: counted for `lives_ms` (0: as long as its node), or not counted (None)."""

    session: Session
    lives_ms: int | None


@dataclass(frozen=True)
class Peak:
    """The most users at the same time, and when that was first reached; `at` is None before anybody came."""

    users: int = 0
    at: datetime | None = None


@dataclass(frozen=True)
class Counts:
    """What is known of the fleet or, from memory, of this node alone. `sessions` by device, sockets and REST."""

    online_users: int = 0
    sessions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEVICES, 0))
    sockets: int = 0
    peak_today: Peak = Peak()
    peak_all_time: Peak = Peak()
    # Distinct users seen today, in 7 and in 30 days; estimated with HyperLogLog (0.81 % standard error).
    active_users: dict[str, int] = field(default_factory=lambda: {"day": 0, "week": 0, "month": 0})
    nodes: int = 1


@dataclass(frozen=True)
class Page:
    """Some of those online: (user_id, sockets, REST sessions) each. `next_cursor` is empty at the end."""

    users: list[tuple[str, int, int]]
    next_cursor: str


class Presence(Protocol):
    """Where sessions are counted. `owner` is the incarnation of the node that holds them; every call is idempotent."""

    async def change(self, owner: str, changes: Sequence[Change]) -> frozenset[str]:
        """The ids of those REST sessions that are not counted because their user has REST_SESSIONS_PER_USER."""
        ...

    async def counts(self) -> Counts: ...

    async def sockets(self, users: Collection[str] | None, devices: Collection[Device] | None) -> int: ...

    async def online_page(self, cursor: str, limit: int) -> Page: ...

    async def cards(self, own: Card) -> list[Card]: ...


def rest_id(user_id: str, session_id: str) -> str:
    """REST clients choose their session's id, so two users may choose the same."""
    return f"{user_id}{SEPARATOR}{session_id}"


def rest_counter(device: str) -> str:
    """The name beside `device`, which counts sessions of both kinds, that counts the REST ones alone."""
    return f"rest:{device}"


def socket_count(counters: Mapping[str, int], devices: Collection[str] = DEVICES) -> int:
    return sum(counters.get(device, 0) - counters.get(rest_counter(device), 0) for device in devices)


def split_number(number: int) -> tuple[int, int]:
    """A user's number as (sockets, REST sessions)."""
    rest, sockets = divmod(number, REST_WEIGHT)
    return sockets, rest


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
