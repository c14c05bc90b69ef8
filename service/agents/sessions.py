"""Conversations that a client names by `session_id`, kept USER_SESSION_TTL after their last message.

They are their owner's alone: the same session_id of another user is another conversation. While Redis is away this
node's memory has what was said through it since; when Redis is back it is told, within HAND_OVER_EVERY_S or before the
user's next call here, whichever is sooner, and what was said meanwhile follows what Redis had. A conversation deleted
meanwhile is deleted then. A node that ends before Redis is back takes what it held along.

An exchange that ends after its conversation was deleted begins a new one with itself alone, as it would under any
session_id: the client goes on talking, and nothing of what was deleted comes back.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog

from service.agents.messages import Message
from service.agents.session_records import Exchange, Kept, Place, SessionInfo, SessionStore, Turn, user_digest
from service.agents.sessions_memory import MemorySessions
from service.errors import BadRequest, Invalid, NotFound, StateRejected, StateUnavailable
from service.state.failover import Answered, Failover

log = structlog.get_logger()

Result = TypeVar("Result")

HAND_OVER_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 2.0
USERS_AT_ONCE = 10  # of REDIS_MAX_CONNECTIONS, so that requests have the rest
ID_CHARACTERS = 128
LIMIT_MAX = 100
CURSOR = re.compile(r"(\d{1,15})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class SessionPage:
    """Conversations, the newest first; `next_cursor` is empty on the last page."""

    sessions: list[SessionInfo]
    next_cursor: str


class Sessions:
    """`shared` is Redis, None where there is none; `run()` tells it what it missed, owned by the composition root."""

    def __init__(
        self, store: Failover[SessionStore], memory: MemorySessions, shared: SessionStore | None = None
    ) -> None:
        self._store, self._memory, self._shared = store, memory, shared
        self._handing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by user, while somebody does

    async def history(self, user_id: str, session_id: str) -> list[Message]:
        """What was said so far, the oldest first; nothing for a new conversation.

        Raises Invalid for a session_id that is not 1 to 128 printable characters, as every method with one does.
        """
        found = await self._read(user_id, session_id)
        return [Message(turn.role, turn.content) for turn in found.turns] if found else []

    async def append(self, user_id: str, session_id: str, turns: Sequence[Turn]) -> None:
        """Keep one exchange: the user's message, then every answer to it.

        Whole exchanges are dropped beyond SESSION_MAX_MESSAGES and SESSION_MAX_BYTES, the oldest first; one that is
        larger than that by itself is not kept, and the conversation stays as it was. Beyond SESSIONS_PER_USER the
        user's conversation that was silent longest goes. Of two that end at the same time both are kept whole.
        """
        place, exchange = placed(user_id, session_id), Exchange.of(turns)
        await self._ask(place.user, lambda store: store.append(place, session_id, [exchange]))

    async def page(self, user_id: str, cursor: str = "", limit: int = 20) -> Answered[SessionPage]:
        """Some of a user's conversations; go on with `next_cursor`.

        One that is spoken in while somebody turns pages moves to the first. Raises BadRequest for a malformed cursor,
        or a limit that is not 1 to LIMIT_MAX.
        """
        after = last_shown(cursor)
        if not 0 < limit <= LIMIT_MAX:
            raise BadRequest(f"limit must be 1 to {LIMIT_MAX}.")
        user = user_digest(user_id)
        answered = await self._ask(user, lambda store: store.page(user, after, limit + 1))
        shown = answered.result[:limit]
        following = f"{shown[-1].last_ms}.{shown[-1].session}" if len(answered.result) > limit else ""
        return Answered(SessionPage([one.info for one in shown if one.info], following), answered.degraded)

    async def read(self, user_id: str, session_id: str) -> Kept:
        """The whole conversation; raises NotFound."""
        found = await self._read(user_id, session_id)
        if found is None:
            raise unknown()
        return found

    async def delete(self, user_id: str, session_id: str) -> None:
        """Forget a conversation; raises NotFound.

        While Redis is away any session_id is taken for one of its, and deleted there when it is back. What another
        node keeps from an outage, and has not handed over yet, begins the conversation anew.
        """
        place = placed(user_id, session_id)
        answered = await self._ask(place.user, lambda store: store.delete(place))
        if answered.degraded and self._shared:
            self._memory.deletions.add(place)
        elif not answered.result:
            raise unknown()

    async def run(self) -> None:
        """Tell Redis for ever what memory kept for it."""
        while self._shared:
            await self.hand_over()
            await asyncio.sleep(HAND_OVER_EVERY_S)

    async def close(self) -> None:
        """Tell Redis what it has missed, as far as that goes in CLOSE_TIMEOUT_S; the rest is lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.hand_over()

    async def hand_over(self) -> None:
        """Everything that Redis takes; a part of a cluster may be away, with the users that it has."""
        users, left = list(self._memory.users()) if self._shared else [], 0
        for start in range(0, len(users), USERS_AT_ONCE):
            if self._store.degraded:
                return
            async with asyncio.TaskGroup() as group:
                told = [group.create_task(self._hand_over(user)) for user in users[start : start + USERS_AT_ONCE]]
            left += sum(not task.result() for task in told)
        if left:
            log.warning("sessions.not_handed_over", users=left)

    async def _read(self, user_id: str, session_id: str) -> Kept | None:
        place = placed(user_id, session_id)
        return (await self._ask(place.user, lambda store: store.read(place))).result

    async def _ask(self, user: str, operation: Callable[[SessionStore], Awaitable[Result]]) -> Answered[Result]:
        """What memory kept for Redis goes there first; while it cannot, memory goes on, so that the order stays."""
        if self._shared and self._memory.has(user) and not await self._hand_over(user):
            return Answered(await operation(self._memory), degraded=True)
        return await self._store.ask(operation)

    async def _hand_over(self, user: str) -> bool:
        """Tell Redis what memory kept of one user; False when it could not be told all."""
        async with self._handing.setdefault(user, asyncio.Lock()):
            if self._shared is None or self._store.degraded:
                return False
            try:
                await self._tell(self._shared, user)
            except StateUnavailable as error:
                if isinstance(error, StateRejected):
                    self._store.rejected()
                return False
            return True

    async def _tell(self, shared: SessionStore, user: str) -> None:
        """Deletions first: what came after them is a conversation begun anew. Each conversation goes in one call, so
        that one deleted meanwhile does not come back in part; repeating it adds nothing."""
        for place in list(self._memory.deletions.of.get(user, ())):
            await shared.delete(place)
            self._memory.deletions.done(place)
        for place, session_id, exchanges in self._memory.conversations(user):
            if exchanges:
                await shared.append(place, session_id, exchanges)
            self._memory.forget(place, exchanges)


def placed(user_id: str, session_id: str) -> Place:
    if not (0 < len(session_id) <= ID_CHARACTERS and session_id.isprintable()):
        raise Invalid(f"session_id must be 1 to {ID_CHARACTERS} printable characters.")
    return Place.of(user_id, session_id)


def last_shown(cursor: str) -> tuple[int, str] | None:
    if not cursor:
        return None
    found = CURSOR.fullmatch(cursor)
    if not found:
        raise BadRequest("cursor is not one that this list gave out.")
    return int(found[1]), found[2]


def unknown() -> NotFound:
    return NotFound("There is no such session.")
