"""Conversations of this node alone: all of them where there is no Redis, else what Redis has not heard yet."""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from service.agents.session_records import Bounds, Exchange, Kept, Listed, Place, SessionInfo, fitting

# For all conversations together: an outage of minutes at a hundred exchanges a second, of a few KB each.
KEPT_BYTES = 64_000_000
KEPT_DELETIONS = 10_000


@dataclass
class Conversation:
    session_id: str
    title: str
    created_ms: int
    last_ms: int
    ends_at: float  # on the monotonic clock
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return sum(len(exchange.turns) for exchange in self.exchanges)

    @property
    def bytes(self) -> int:
        return sum(len(exchange.data) for exchange in self.exchanges)

    @property
    def info(self) -> SessionInfo:
        return SessionInfo(self.session_id, self.created_ms / 1000, self.last_ms / 1000, self.messages, self.title)

    @property
    def kept(self) -> Kept:
        return Kept(self.info, tuple(turn for exchange in self.exchanges for turn in exchange.turns))


class MemorySessions:
    """Implements SessionStore for one node. Beyond KEPT_BYTES the conversations that were silent longest give way."""

    def __init__(
        self, bounds: Bounds, clock: Callable[[], float] = time.monotonic, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._bounds, self._clock, self._kept_bytes = bounds, clock, kept_bytes
        # In the order of their last exchanges, so that the first is always the next to end.
        self._kept: OrderedDict[Place, Conversation] = OrderedDict()
        self._of: defaultdict[str, dict[Place, None]] = defaultdict(dict)  # by user, in the same order
        self._bytes = 0
        self.deletions = Deletions()

    async def append(self, place: Place, session_id: str, exchanges: Sequence[Exchange]) -> None:
        self._expire()
        exchanges = fitting(exchanges, self._bounds)
        if not exchanges:
            return
        first = exchanges[0]
        found = self._kept.get(place) or Conversation(session_id, first.title, first.began_ms, 0, 0.0)
        self._drop(place)
        known = {exchange.id for exchange in found.exchanges}
        found.exchanges += [exchange for exchange in exchanges if exchange.id not in known]
        while found.exchanges and (found.messages > self._bounds.messages or found.bytes > self._bounds.bytes):
            found.exchanges.pop(0)
        found.last_ms = max(found.last_ms, exchanges[-1].ended_ms)
        found.ends_at = self._clock() + self._bounds.ttl_s
        self._put(place, found)
        self._make_room(place.user)

    async def read(self, place: Place) -> Kept | None:
        self._expire()
        found = self._kept.get(place)
        return found.kept if found else None

    async def page(self, user: str, after: tuple[int, str] | None, limit: int) -> list[Listed]:
        self._expire()
        own = ((self._kept[place], place.session) for place in self._of.get(user, ()))
        listed = [Listed(found.last_ms, session, found.info) for found, session in own]
        listed.sort(key=lambda one: (one.last_ms, one.session), reverse=True)
        return list(islice((one for one in listed if after is None or (one.last_ms, one.session) < after), limit))

    async def delete(self, place: Place) -> bool:
        self._expire()
        return self._drop(place) is not None

    def users(self) -> set[str]:
        """Digests of those of whom something is here."""
        return {*self._of, *self.deletions.of}

    def has(self, user: str) -> bool:
        return user in self._of or user in self.deletions.of

    def conversations(self, user: str) -> list[tuple[Place, str, list[Exchange]]]:
        """Those of a user: where each lies, its session_id, its exchanges now."""
        own = self._of.get(user, ())
        return [(place, self._kept[place].session_id, [*self._kept[place].exchanges]) for place in own]

    def forget(self, place: Place, exchanges: Iterable[Exchange]) -> None:
        """They are kept elsewhere now."""
        found, gone = self._kept.get(place), {exchange.id for exchange in exchanges}
        if found is None:
            return
        if all(exchange.id in gone for exchange in found.exchanges):
            self._drop(place)
            return
        before = found.bytes
        found.exchanges = [exchange for exchange in found.exchanges if exchange.id not in gone]
        self._bytes -= before - found.bytes

    def _put(self, place: Place, conversation: Conversation) -> None:
        self._kept[place] = conversation
        self._of[place.user][place] = None
        self._bytes += conversation.bytes

    def _drop(self, place: Place) -> Conversation | None:
        found = self._kept.pop(place, None)
        if found:
            self._bytes -= found.bytes
            own = self._of[place.user]
            own.pop(place)
            if not own:
                del self._of[place.user]
        return found

    def _make_room(self, user: str) -> None:
        while len(self._of[user]) > self._bounds.sessions_per_user:
            self._drop(next(iter(self._of[user])))
        while self._bytes > self._kept_bytes:
            self._drop(next(iter(self._kept)))

    def _expire(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).ends_at <= now:
            self._drop(next(iter(self._kept)))


class Deletions:
    """Conversations deleted while Redis could not be told, by user; of very many the oldest are forgotten."""

    def __init__(self) -> None:
        self._places: OrderedDict[Place, None] = OrderedDict()
        self.of: defaultdict[str, set[Place]] = defaultdict(set)

    def add(self, place: Place) -> None:
        self._places[place] = None
        self.of[place.user].add(place)
        while len(self._places) > KEPT_DELETIONS:
            self.done(next(iter(self._places)))

    def done(self, place: Place) -> None:
        self._places.pop(place, None)
        self.of[place.user].discard(place)
        if not self.of[place.user]:
            del self.of[place.user]
