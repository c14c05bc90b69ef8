"""The words of presence: a session, the counts, and the port that Redis and memory both implement."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from service.devices import DEVICES, Device


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of one client. Ids are printable and at most 128 characters; `since_s` in Unix seconds."""

    session_id: str
    user_id: str
    client_id: str
    device: Device
    since_s: int


@dataclass(frozen=True)
class Peak:
    """The most users at the same time, and when that was first reached; `at` is None before anybody came."""

    users: int = 0
    at: datetime | None = None


@dataclass(frozen=True)
class Counts:
    """What is known of the fleet or, from memory, of this node alone."""

    online_users: int = 0
    sessions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEVICES, 0))
    peak_today: Peak = Peak()
    peak_all_time: Peak = Peak()
    # Distinct users seen today, in 7 and in 30 days; estimated with HyperLogLog (0.81 % standard error).
    active_users: dict[str, int] = field(default_factory=lambda: {"day": 0, "week": 0, "month": 0})
    nodes: int = 1


class Presence(Protocol):
    """Where sessions are counted. `owner` is the incarnation of the node that holds them; every call is idempotent."""

    async def join(self, owner: str, sessions: Iterable[Session]) -> None: ...

    async def leave(self, owner: str, sessions: Iterable[Session]) -> None: ...

    async def counts(self) -> Counts: ...


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
