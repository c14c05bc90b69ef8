"""The tracker of online users, as the guide uses it: add_user, remove_user, heartbeat, get_stats.

This node's own sockets are always in memory, and so are the REST sessions it heard of in the last minute. While Redis
answers, they are counted there too: the sockets under the name of this node's incarnation, which holds a lease, the
REST sessions under one name that all nodes share. An incarnation whose lease was lost (an outage, a flush, a frozen
process) is over: the node begins another, counts its sessions under the new name, and removes what the old one left.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog

from service.background import Ran, unwatched
from service.devices import DEVICES, Device
from service.errors import Invalid, StateRejected, StateUnavailable, TooMany
from service.presence.audit import Audit
from service.presence.changes import Changes
from service.presence.memory import MemoryPresence
from service.presence.pages import check_limit
from service.presence.redis import RedisPresence
from service.presence.sessions import REST_SESSIONS_PER_USER, REST_TTL_S, Card, Page, Presence, Session, rest_id
from service.presence.shards import BATCH, batches
from service.presence.stats import OnlineUsers, described
from service.state.failover import Answered, Failover

log = structlog.get_logger()

# A third of the lease: two renewals may be lost before it ends.
BEAT_S = 3.0
AUDIT_EVERY_S = 30.0
ID_CHARACTERS = 128


def ignored(drift: float) -> None:
    """Where nobody watches the drift."""


class Tracker:
    """Counts this node's sessions; `run()` keeps the lease and reaps dead nodes, owned by the composition root.

    `card` is what this node says of itself to the fleet, asked at each beat: small, and fit for JSON. `drift` is told
    what each audit found, `audited` that there was one.
    """

    def __init__(
        self,
        presence: Failover[Presence],
        memory: MemoryPresence,
        fleet: RedisPresence | None = None,
        clock: Callable[[], float] = time.time,
        *,
        card: Callable[[], Card] = dict,
        drift: Callable[[float], None] = ignored,
        audited: Ran = unwatched,
    ) -> None:
        self._presence, self._memory, self._fleet, self._clock = presence, memory, fleet, clock
        self._card, self._drift, self._audited = card, drift, audited
        self._owner = new_incarnation()
        self._beginning = asyncio.Lock()
        self._changes = Changes(self._write)
        self._audit = Audit()
        self._closed = False
        self._untold = False  # a write of this incarnation did not reach the fleet

    async def add_user(self, user_id: str, session_id: str, client_id: str, device_type: str = "unknown") -> None:
        """Count a socket; doing it again changes nothing. Raises Invalid for an id that is not 1 to 128 characters."""
        check_ids(user_id, session_id, client_id)
        session = Session(session_id, user_id, client_id, known_device(device_type), int(self._clock()))
        if self._memory.add(session) or not self._changes.idle:
            await self._changes.made([session])

    async def remove_user(self, session_id: str) -> None:
        """Stop counting a socket; one that is not here is no fault."""
        session = self._memory.sessions.get(session_id)
        if session and self._memory.remove(session):
            await self._changes.made([session])

    async def heartbeat(self, user_id: str, session_id: str, client_id: str, device_type: str = "unknown") -> None:
        """Count a REST session for REST_TTL_S from now, whichever node hears its next heartbeat.

        Sessions of different users are different, whatever ids they chose. Raises Invalid as add_user, and TooMany for
        a new one of a user who has REST_SESSIONS_PER_USER in the fleet (or on this node, while Redis is away).
        """
        check_ids(user_id, session_id, client_id)
        name, since_s = rest_id(user_id, session_id), int(self._clock())
        session = Session(name, user_id, client_id, known_device(device_type), since_s, "rest")
        fits = self._memory.touch(session)
        answered = await self._changes.made([session])
        if name in answered.result or (answered.degraded and not fits):
            self._memory.remove(session)
            raise TooMany(f"A user may have {REST_SESSIONS_PER_USER} REST sessions.", retry_after_s=REST_TTL_S)

    async def end_heartbeat(self, session_id: str, user_id: str) -> None:
        """End a REST session now; one that is not there is no fault.

        It may be counted until its time when Redis is away, or when another node that heard of it too registers anew.
        """
        check_ids(user_id, session_id)
        session = Session(rest_id(user_id, session_id), user_id, "", "unknown", 0, "rest")
        self._memory.remove(session)
        await self._changes.made([session])

    async def get_stats(self) -> OnlineUsers:
        """The fleet's counts; with `degraded` true this node's alone, since Redis is away or there is none.

        Peaks are exact with one shard; with several they are sampled every BEAT_S by each node.
        """
        answered = await self._presence.ask(lambda presence: presence.counts())
        return described(answered.result, answered.degraded)

    async def sockets(
        self, users: Collection[str] | None = None, devices: Collection[Device] | None = None
    ) -> Answered[int]:
        """How many sockets the fleet (this node, where degraded) has: all, or of users, or of devices."""
        if users is not None and devices is not None:
            raise ValueError("either users or devices")
        if users is not None:
            users = [user for user in users if is_id(user)]  # nobody else can be online
        return await self._presence.ask(lambda presence: presence.sockets(users, devices))

    async def online_page(self, cursor: str = "", limit: int = 100) -> Answered[Page]:
        """Some of those online; go on with `next_cursor` until it is empty.

        While others come and go a user may be said twice, and a page may be longer than `limit`; one who is online all
        the time is said at least once. Raises BadRequest for a malformed cursor, or a limit that is not 1 to 1000.
        """
        check_limit(limit)
        return await self._presence.ask(lambda presence: presence.online_page(cursor, limit))

    async def nodes(self) -> Answered[list[Card]]:
        """The cards of the nodes that live; this one's alone where degraded."""
        return await self._presence.ask(lambda presence: presence.cards(self._card()))

    async def run(self) -> None:
        """Beat for ever, and audit every AUDIT_EVERY_S."""
        while self._fleet:
            for _ in range(round(AUDIT_EVERY_S / BEAT_S)):
                await self.beat()
                await asyncio.sleep(BEAT_S)
            await self._unless_away(self.audit)

    async def beat(self) -> None:
        """Hold the lease, or begin anew when it was lost; then remove whatever is over, of any node."""
        await self._unless_away(self._beat)

    async def close(self) -> None:
        """Leave at once, so that nobody has to wait for the lease to end."""
        self._closed = True  # a beat on its way shall not begin anew
        await self._changes.close()
        async with self._beginning:
            await self._unless_away(self._end)

    async def begin(self) -> None:
        """Begin a new incarnation: count every session of this node under a new name, then remove the old one's.

        In this order users never drop out of the count; sockets are counted twice for a moment. Safe to repeat.

        1. Lease the new name, so that what is counted under it is reaped if this node dies.
        2. Change to it, and touch every session. Who joins or leaves meanwhile shares these writes or comes after.
        3. End the old name and reap it. A write that lands late under it is reaped at any node's next beat.
        """
        async with self._beginning:
            if self._fleet is None or self._closed:
                return
            old, new = self._owner, new_incarnation()
            await self._fleet.leases.begin(new, self._card())
            self._owner, self._untold = new, False
            self._memory.expire()
            sessions = list(self._memory.sessions.values())
            for batch in batches(sessions, BATCH):
                if (await self._changes.made(batch)).degraded:
                    raise StateUnavailable("presence_begin: not all sessions were told")
            await self._fleet.leases.end(old)
            await self._fleet.reap(old)
        log.info("presence.incarnation", sessions=len(sessions))

    async def audit(self) -> int:
        """Recount the fleet, and this node's own part of it; how far the counters are off, which should be 0."""
        if self._fleet is None:
            return 0
        own = self._memory.socket_sessions() if self._changes.idle else None
        drift = await self._audit.run(self._fleet, self._owner, own, lambda: self._changes.idle)
        self._drift(drift)
        if drift:
            log.error("presence.drift", sessions=drift)
        self._audited()
        return drift

    async def _write(self, touched: Sequence[Session]) -> Answered[frozenset[str]]:
        """Which REST sessions were not counted because their users have as many as may be; they are forgotten here."""
        owner, changes = self._owner, [self._memory.change_of(session) for session in touched]
        answered = await self._presence.ask(lambda presence: presence.change(owner, changes))
        self._untold = self._untold or answered.degraded
        for change in changes:
            if change.session.session_id in answered.result:
                self._memory.remove(change.session)
        return answered

    async def _beat(self) -> None:
        if self._fleet is None:
            return
        if not await self._fleet.leases.renew(self._owner, self._card()) or self._untold:
            await self.begin()
        if reaped := await self._fleet.reap_dead():
            log.info("presence.reaped", sessions=reaped)
        await self._fleet.leases.forget_over()
        await self._fleet.end_expired()
        await self._fleet.sample_peak()

    async def _end(self) -> None:
        """Should it fail, the lease ends by itself and a survivor reaps."""
        if self._fleet:
            await self._fleet.leases.end(self._owner)
            await self._fleet.reap(self._owner)

    async def _unless_away(self, work: Callable[[], Any]) -> None:
        if self._presence.degraded:
            return
        try:
            await work()
        except StateUnavailable as error:
            if isinstance(error, StateRejected):
                self._presence.rejected()
            log.warning("presence.beat_missed", reason=str(error))


def new_incarnation() -> str:
    return secrets.token_hex(8)


def known_device(said: str) -> Device:
    return said if said in DEVICES else "unknown"


def is_id(value: str) -> bool:
    return 0 < len(value) <= ID_CHARACTERS and value.isprintable()


def check_ids(user_id: str, session_id: str, client_id: str = "-") -> None:
    for name, value in (("user_id", user_id), ("session_id", session_id), ("client_id", client_id)):
        if not is_id(value):
            raise Invalid(f"{name} must be 1 to {ID_CHARACTERS} printable characters.")
