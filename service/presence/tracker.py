"""The tracker of online users, as the guide uses it: add_user, remove_user, get_stats.

This node's own sessions are always in memory. While Redis answers, they are counted there too, under the name of this
node's incarnation, which holds a lease. An incarnation whose lease was lost (an outage, a flush, a frozen process) is
over: the node begins another, counts its sessions under the new name, and removes what the old one left.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

import structlog

from service.devices import DEVICES, Device
from service.errors import Invalid, StateUnavailable
from service.presence.memory import MemoryPresence
from service.presence.redis import RedisPresence
from service.presence.sessions import Counts, Peak, Presence, Session
from service.state.failover import Failover

log = structlog.get_logger()

# A third of the lease: two renewals may be lost before it ends.
BEAT_S = 3.0
ID_CHARACTERS = 128


class Tracker:
    """Counts this node's sessions; `run()` keeps the lease and reaps dead nodes, owned by the composition root."""

    def __init__(
        self,
        presence: Failover[Presence],
        memory: MemoryPresence,
        fleet: RedisPresence | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._presence, self._memory, self._fleet, self._clock = presence, memory, fleet, clock
        self._owner = new_incarnation()
        self._changing = asyncio.Lock()

    async def add_user(self, user_id: str, session_id: str, client_id: str, device_type: str = "unknown") -> None:
        """Count a session; doing it again changes nothing. Raises Invalid for an id that is not 1 to 128 characters."""
        for name, value in (("user_id", user_id), ("session_id", session_id), ("client_id", client_id)):
            check_id(name, value)
        device: Device = device_type if device_type in DEVICES else "unknown"
        session = Session(session_id, user_id, client_id, device, int(self._clock()))
        if self._memory.add(session):
            await self._presence.call(lambda presence: presence.join(self._owner, [session]))

    async def remove_user(self, session_id: str) -> None:
        """Stop counting a session; one that is not here is no fault."""
        session = self._memory.sessions.get(session_id)
        if session and self._memory.remove(session):
            await self._presence.call(lambda presence: presence.leave(self._owner, [session]))

    async def get_stats(self) -> dict[str, Any]:
        """The fleet's counts, or this node's with `degraded` true while Redis is away."""
        counts = await self._presence.call(lambda presence: presence.counts())
        return described(counts, self._presence.degraded)

    async def run(self) -> None:
        """Beat for ever."""
        while self._fleet:
            if not self._presence.degraded:
                await self._beat(self._fleet)
            await asyncio.sleep(BEAT_S)

    async def close(self) -> None:
        """Leave at once, so that nobody has to wait for the lease to end."""
        if self._fleet and not self._presence.degraded:
            try:
                await self._fleet.end_lease(self._owner)
                await self._fleet.reap(self._owner)
            except StateUnavailable:
                return  # the lease ends by itself, and a survivor reaps

    async def begin(self) -> None:
        """Begin a new incarnation: count every session of this node under a new name, then remove the old one's.

        In this order users never drop out of the count; sessions are counted twice for a moment. Safe to repeat.
        """
        if self._fleet is None:
            return
        async with self._changing:
            old, self._owner = self._owner, new_incarnation()
            await self._fleet.begin_lease(self._owner)
            sessions = list(self._memory.sessions.values())
            await self._fleet.join(self._owner, sessions)
            gone = [session for session in sessions if session.session_id not in self._memory.sessions]
            await self._fleet.leave(self._owner, gone)  # they left while we counted them
            await self._fleet.end_lease(old)
            await self._fleet.reap(old)
        log.info("presence.incarnation", sessions=len(sessions))

    async def _beat(self, fleet: RedisPresence) -> None:
        try:
            if not await fleet.renew_lease(self._owner):
                await self.begin()
            await reap_dead(fleet)
        except StateUnavailable as error:
            log.warning("presence.beat_missed", reason=str(error))


async def reap_dead(fleet: RedisPresence) -> None:
    """Remove the sessions of every incarnation that is over; all survivors do it, and it is idempotent."""
    leases = await fleet.leases()
    for owner in leases.over:
        if reaped := await fleet.reap(owner):
            log.info("presence.reaped", sessions=reaped)
    if leases.over:
        await fleet.forget(leases)


def new_incarnation() -> str:
    return secrets.token_hex(8)


def check_id(name: str, value: str) -> None:
    if not 0 < len(value) <= ID_CHARACTERS or not value.isprintable():
        raise Invalid(f"{name} must be 1 to {ID_CHARACTERS} printable characters.")


def described(counts: Counts, degraded: bool) -> dict[str, Any]:
    return {
        "online_users": counts.online_users,
        "sessions": sum(counts.sessions.values()),
        "devices": counts.sessions,
        "peak": {"today": peak(counts.peak_today), "all_time": peak(counts.peak_all_time)},
        "active_users": counts.active_users,
        "nodes": counts.nodes,
        "degraded": degraded,
    }


def peak(found: Peak) -> dict[str, Any]:
    return {"users": found.users, "at": found.at.isoformat() if found.at else None}
