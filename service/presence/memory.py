"""Presence of this node alone: its own sessions, counted in memory. Also the truth that Redis is mended from."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import tzinfo

from service.devices import DEVICES
from service.presence.sessions import Counts, Peak, Session, moment


class MemoryPresence:
    """Implements Presence for one node; `owner` does not matter here. `clock` gives Unix seconds."""

    def __init__(self, zone: tzinfo, clock: Callable[[], float] = time.time) -> None:
        self._zone, self._clock = zone, clock
        self.sessions: dict[str, Session] = {}
        self._users: Counter[str] = Counter()
        self._devices: Counter[str] = Counter()
        self._today, self._all_time = Peak(), Peak()
        self._seen: set[str] = set()

    async def join(self, owner: str, sessions: Iterable[Session]) -> None:
        for session in sessions:
            self.add(session)

    async def leave(self, owner: str, sessions: Iterable[Session]) -> None:
        for session in sessions:
            self.remove(session)

    async def counts(self) -> Counts:
        self._observe_peaks()
        seen = len(self._seen)
        return Counts(
            online_users=len(self._users),
            sessions={device: self._devices[device] for device in DEVICES},
            peak_today=self._today,
            peak_all_time=self._all_time,
            active_users={"day": seen, "week": seen, "month": seen},
        )

    def add(self, session: Session) -> bool:
        """False when it was there already."""
        if session.session_id in self.sessions:
            return False
        self.sessions[session.session_id] = session
        self._users[session.user_id] += 1
        self._devices[session.device] += 1
        self._observe_peaks()
        self._seen.add(session.user_id)
        return True

    def remove(self, session: Session) -> bool:
        """False when it was gone already."""
        known = self.sessions.pop(session.session_id, None)
        if known is None:
            return False
        self._devices[known.device] -= 1
        self._users[known.user_id] -= 1
        if not self._users[known.user_id]:
            del self._users[known.user_id]
        return True

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
