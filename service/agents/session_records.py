"""What a conversation is made of, and the port that Redis and memory implement to keep it."""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal, Protocol

import structlog
from pydantic import Field

log = structlog.get_logger()

TITLE_CHARACTERS = 80
UNIX_S_MAX = 253_402_300_799  # the last second that a date of four digits can say


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `agent` is who answered, `at` Unix seconds."""

    role: Literal["user", "assistant"]
    content: str
    agent: str = ""
    at: Annotated[float, Field(ge=0, le=UNIX_S_MAX)] = field(default_factory=time.time)


@dataclass(frozen=True)
class SessionInfo:
    """What a list says of a conversation: times are Unix seconds; `messages` are those kept."""

    session_id: str
    created_at: float
    last_at: float
    messages: int
    title: str


@dataclass(frozen=True)
class Bounds:
    """How long (seconds since the last message) and how much is kept; bytes are those of the exchanges as JSON."""

    ttl_s: int
    messages: int
    bytes: int
    sessions_per_user: int


@dataclass(frozen=True)
class Place:
    """Where a conversation lies: digests, since either id may be somebody's secret."""

    user: str
    session: str

    @classmethod
    def of(cls, user_id: str, session_id: str) -> "Place":
        # No user id holds a NUL (PostgreSQL has none), so no two pairs look alike.
        return cls(user_digest(user_id), sha256(f"{user_id}\0{session_id}"))


def user_digest(user_id: str) -> str:
    return sha256(user_id)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Exchange:
    """A user's message and its answers, kept and dropped together. `id` lets a repeated write be known for one."""

    id: str
    turns: tuple[Turn, ...]
    data: bytes  # the turns as JSON

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> "Exchange":
        """A model may have sent half a surrogate pair, which UTF-8 cannot hold: it is kept as a question mark."""
        turns = [replace(turn, content=turn.content.encode(errors="replace").decode()) for turn in turns]
        data = json.dumps([asdict(turn) for turn in turns], ensure_ascii=False).encode()
        return cls(secrets.token_hex(8), tuple(turns), data)

    @property
    def title(self) -> str:
        return self.turns[0].content[:TITLE_CHARACTERS]

    @property
    def began_ms(self) -> int:
        return round(min(turn.at for turn in self.turns) * 1000)

    @property
    def ended_ms(self) -> int:
        return round(max(turn.at for turn in self.turns) * 1000)


def fitting(exchanges: Sequence[Exchange], bounds: Bounds) -> list[Exchange]:
    """Those that a conversation can hold; one that is larger by itself would only drive out all before it."""
    kept = [one for one in exchanges if len(one.turns) <= bounds.messages and len(one.data) <= bounds.bytes]
    if len(kept) < len(exchanges):
        log.info("sessions.exchange_too_large", exchanges=len(exchanges) - len(kept))
    return kept


@dataclass(frozen=True)
class Kept:
    """A conversation as it stands."""

    info: SessionInfo
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Listed:
    """A conversation in its user's list; after `last_ms` and `session` (its digest) the next page begins."""

    last_ms: int
    session: str
    info: SessionInfo | None  # None: what is kept there is not ours


class SessionStore(Protocol):
    """Where conversations are. A call may be repeated, or made on both stores."""

    async def append(self, place: Place, session_id: str, exchanges: Sequence[Exchange]) -> None:
        """All at once: whole exchanges beyond the bounds go, the oldest first, and so do the user's oldest sessions.

        One that is beyond the bounds by itself is not kept; where none is, the conversation stays as it was.
        """
        ...

    async def read(self, place: Place) -> Kept | None: ...

    async def page(self, user: str, after: tuple[int, str] | None, limit: int) -> list[Listed]:
        """The newest first, from after `(last_ms, session)` on."""
        ...

    async def delete(self, place: Place) -> bool:
        """Whether there was one."""
        ...
