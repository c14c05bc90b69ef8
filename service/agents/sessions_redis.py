"""Conversations in Redis. All keys of a user share a hash tag, so that one script may touch them:

| key | type | what |
|---|---|---|
| `atp:{chat:<user>}` | zset | conversation -> Unix milliseconds of its last exchange |
| `atp:{chat:<user>}:<conversation>` | hash | `id`, `title`, `created`, `last` (Unix ms), `messages`; `order` of its exchanges, each `id:messages:bytes`; `x<id>` an exchange's turns as JSON |

`<user>` and `<conversation>` are SHA-256 digests. One key holds a whole conversation, so that it ends, or is evicted,
as a whole.
"""  # noqa: E501 - a table

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from service.agents.session_records import (
    UNIX_S_MAX,
    Bounds,
    Exchange,
    Kept,
    Listed,
    Place,
    SessionInfo,
    Turn,
    fitting,
)
from service.state.redis import RedisState
from service.state.scripts import Script

log = structlog.get_logger()

SCRIPTS = Path(__file__).parent / "lua"
TURNS: TypeAdapter[list[Turn]] = TypeAdapter(list[Turn])


class RedisSessions:
    """Implements SessionStore for the fleet. Every method raises StateUnavailable or StateRejected."""

    def __init__(self, redis: RedisState, bounds: Bounds) -> None:
        self._redis, self._bounds = redis, bounds
        self._append, self._page = Script(SCRIPTS / "session_append.lua"), Script(SCRIPTS / "session_page.lua")
        self._delete = Script(SCRIPTS / "session_delete.lua")

    async def append(self, place: Place, session_id: str, exchanges: Sequence[Exchange]) -> None:
        exchanges = fitting(exchanges, self._bounds)
        if not exchanges:
            return
        first, last, bounds = exchanges[0], exchanges[-1], self._bounds
        head = [place.session, session_id, first.title, first.began_ms, last.ended_ms, bounds.ttl_s]
        head += [bounds.messages, bounds.bytes, bounds.sessions_per_user]
        tail = [part for exchange in exchanges for part in (exchange.id, len(exchange.turns), exchange.data)]
        await self._redis.run("session_append", lambda r: self._append.call(r, keys(place), [*head, *tail]))

    async def read(self, place: Place) -> Kept | None:
        found = await self._redis.run("session_history", lambda r: r.hgetall(keys(place)[1]))
        return kept(found) if found else None

    async def page(self, user: str, after: tuple[int, str] | None, limit: int) -> list[Listed]:
        arguments = [*(after or ("+inf", "")), limit]
        rows = await self._redis.run("session_page", lambda r: self._page.call(r, [list_key(user)], arguments))
        return [Listed(int(last), digest.decode(), info_of(*known)) for digest, last, *known in rows]

    async def delete(self, place: Place) -> bool:
        found = await self._redis.run("session_delete", lambda r: self._delete.call(r, keys(place), [place.session]))
        return bool(found)


def list_key(user: str) -> str:
    return f"atp:{{chat:{user}}}"


def keys(place: Place) -> list[str]:
    return [list_key(place.user), f"{list_key(place.user)}:{place.session}"]


def kept(found: dict[bytes, bytes]) -> Kept | None:
    """None where any part is not what we wrote."""
    info = info_of(*(found.get(name) for name in (b"id", b"created", b"last", b"messages", b"title")))
    ids = [entry.partition(b":")[0] for entry in found.get(b"order", b"").split()]
    try:
        turns = [turn for name in ids for turn in TURNS.validate_json(found.get(b"x" + name, b""))]
    except ValidationError:
        say_foreign()
        return None
    return Kept(info, tuple(turns)) if info else None


def info_of(*values: Any) -> SessionInfo | None:
    """From id, created, last, messages and title, as Redis has them; None where one is not what we wrote."""
    try:
        session_id, created, last, messages, title = (value.decode() for value in values)
        return SessionInfo(session_id, unix_s(created), unix_s(last), int(messages), title)
    except (AttributeError, ValueError):
        say_foreign()
        return None


def unix_s(milliseconds: str) -> float:
    """Raises ValueError for what is no date."""
    found = int(milliseconds) / 1000
    if not 0 <= found <= UNIX_S_MAX:
        raise ValueError("beyond the calendar")
    return found


def say_foreign() -> None:
    """Said once for each look; what it holds is nobody's to log."""
    log.warning("sessions.foreign_value")
