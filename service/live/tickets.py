"""Single-use tickets: how a browser, which cannot set headers on a WebSocket, shows whose it is.

The ticket itself is nowhere stored; its SHA-256 leads to the hash of the key that asked for it, for TICKET_S.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from service.errors import Unauthorized
from service.state.failover import Failover
from service.state.redis import RedisState

TICKET_S = 30
PREFIX = "wst_"
KEPT_IN_MEMORY = 100_000


class TicketStore(Protocol):
    """Where tickets wait to be used once."""

    async def put(self, digest: str, key_hash: str) -> None: ...

    async def take(self, digest: str) -> str | None: ...


class RedisTickets:
    """SET with EX, and GETDEL: whoever takes a ticket has taken it from everybody."""

    def __init__(self, redis: RedisState) -> None:
        self._redis = redis

    async def put(self, digest: str, key_hash: str) -> None:
        await self._redis.run("ticket_put", lambda r: r.set(f"atp:ticket:{digest}", key_hash, ex=TICKET_S))

    async def take(self, digest: str) -> str | None:
        found = await self._redis.run("ticket_take", lambda r: r.getdel(f"atp:ticket:{digest}"))
        return found.decode() if found else None


class MemoryTickets:
    """This node's own, while there is no Redis; the oldest give way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def put(self, digest: str, key_hash: str) -> None:
        now = self._clock()
        while self._kept and (len(self._kept) >= KEPT_IN_MEMORY or next(iter(self._kept.values()))[1] < now):
            self._kept.popitem(last=False)
        self._kept[digest] = key_hash, now + TICKET_S

    async def take(self, digest: str) -> str | None:
        key_hash, ends_at = self._kept.pop(digest, (None, 0.0))
        return key_hash if self._clock() < ends_at else None


class Tickets:
    """Issue and redeem."""

    def __init__(self, store: Failover[TicketStore]) -> None:
        self._store = store

    async def issue(self, key_hash: bytes) -> str:
        """A ticket that lets its bearer open one socket as the owner of this key, within TICKET_S."""
        ticket = PREFIX + secrets.token_urlsafe(32)
        digest = digest_of(ticket)
        await self._store.call(lambda store: store.put(digest, key_hash.hex()))
        return ticket

    async def redeem(self, ticket: str) -> bytes:
        """The hash of the key it was issued to; raises Unauthorized for one that is used, old or invented."""
        digest = digest_of(ticket)
        # One that was issued here while Redis was away, or so slow that it may have it as well: gone from both.
        here = await self._store.memory.take(digest)
        found = await self._store.call(lambda store: store.take(digest)) or here
        if found is None:
            raise Unauthorized("The ticket is used, too old, or none of ours.", reason="ticket")
        return bytes.fromhex(found)


def digest_of(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
