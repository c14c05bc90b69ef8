"""Presence of this node alone: its own sessions, counted in memory. Also the truth that Redis is mended from."""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import tzinfo
from itertools import takewhile

from service.devices import DEVICES, Device
from service.presence.pages import memory_place
from service.presence.sessions import (
    REST_SESSIONS_PER_USER,
    REST_TTL_S,
    REST_WEIGHT,
    Card,
    Change,
    Counts,
    Page,
    Peak,
    Session,
    moment,
    rest_counter,
    socket_count,
    split_number,
)


class MemoryPresence:
    """Implements Presence for one node; `owner` does not matter here.

    `clock` gives Unix seconds and names days. REST sessions, those heard of here, end by `monotonic` (seconds), which
    no change of the time of day moves.
    """

    def __init__(
        self,
        zone: tzinfo,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._zone, self._clock, self._monotonic = zone, clock, monotonic
        self.sessions: dict[str, Session] = {}
        # REST session -> its end. Every heartbeat moves its own to the back, so the first is always the next to end.
        self._ends: dict[str, float] = {}
        self._users: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()
        self._today, self._all_time = Peak(), Peak()
        self._seen: set[str] = set()

    async def change(self, owner: str, changes: Sequence[Change]) -> frozenset[str]:
        """Nothing to do: the changes were made here first, and `touch` has said who is beyond the cap."""
        return frozenset()

    async def counts(self) -> Counts:
        self.expire()
        self._observe_peaks()
        seen = len(self._seen)
        return Counts(
            online_users=len(self._users),
            sessions={device: self._counters[device] for device in DEVICES},
            sockets=socket_count(self._counters),
            peak_today=self._today,
            peak_all_time=self._all_time,
            active_users={"day": seen, "week": seen, "month": seen},
        )

    async def sockets(self, users: Collection[str] | None, devices: Collection[Device] | None) -> int:
        if users is not None:
            return sum(split_number(self._users[user])[0] for user in users)
        return socket_count(self._counters, DEVICES if devices is None else devices)

    async def online_page(self, cursor: str, limit: int) -> Page:
        self.expire()
        names = sorted(self._users)
        start = bisect_right(names, memory_place(cursor))
        page = names[start : start + limit]
        following = f"m.{page[-1]}" if start + limit < len(names) else ""
        return Page([(user, *split_number(self._users[user])) for user in page], following)

    async def cards(self, own: Card) -> list[Card]:
        return [own]

    def socket_sessions(self) -> int:
        return len(self.sessions) - len(self._ends)

    def change_of(self, session: Session) -> Change:
        """What the fleet shall know of a session now."""
        here = self.sessions.get(session.session_id)
        if here is None:
            return Change(session, None)
        ends = self._ends.get(here.session_id)
        return Change(here, 0 if ends is None else max(0, round((ends - self._monotonic()) * 1000)))

    def add(self, session: Session) -> bool:
        """False when it was there already."""
        if session.session_id in self.sessions:
            return False
        self.sessions[session.session_id] = session
        self._count(session, 1)
        self._observe_peaks()
        self._seen.add(session.user_id)
        return True

    def touch(self, session: Session) -> bool:
        """A heartbeat of a REST session: it lives for REST_TTL_S from now.

        False when it is new and its user had REST_SESSIONS_PER_USER here: while Redis answers that is Redis's to judge,
        since some may have ended by way of another node.
        """
        self.expire()
        known = self.sessions.get(session.session_id)
        fits = known is not None or split_number(self._users[session.user_id])[1] < REST_SESSIONS_PER_USER
        if known and known.device != session.device:
            self.remove(known)
        self.add(session)
        self._ends.pop(session.session_id, None)
        self._ends[session.session_id] = self._monotonic() + REST_TTL_S
        return fits

    def remove(self, session: Session) -> bool:
        """False when it was gone already."""
        known = self.sessions.pop(session.session_id, None)
        if known is None:
            return False
        self._ends.pop(known.session_id, None)
        self._count(known, -1)
        return True

    def expire(self) -> None:
        """Drop the REST sessions whose end has passed; the work grows with those only."""
        now = self._monotonic()
        for session_id in list(takewhile(lambda name: self._ends[name] <= now, self._ends)):
            self.remove(self.sessions[session_id])

    def _count(self, session: Session, step: int) -> None:
        self._counters[session.device] += step
        if session.kind == "rest":
            self._counters[rest_counter(session.device)] += step
        self._users[session.user_id] += step * (REST_WEIGHT if session.kind == "rest" else 1)
        if not self._users[session.user_id]:
            del self._users[session.user_id]

    def _observe_peaks(self) -> None:
        online, now = len(self._users), moment(self._clock())
        if online > self._all_time.users:
            self._all_time = Peak(online, now)
        began = self._today.at
        if began is None or began.astimezone(self._zone).date() != now.astimezone(self._zone).date():
            self._seen = set(self._users)
            self._today = Peak(online, now)
        elif online > self._today.users:
            self._today = Peak(online, now)
