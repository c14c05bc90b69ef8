"""From a token to who is calling, mostly from memory.

A verified key is remembered for FRESH_S and forgotten at once when its revocation is heard. While Redis is away no
revocation can be heard, so keys are asked of PostgreSQL every second; while PostgreSQL is away a key that was good is
believed for STALE_S, so that an outage does not lock everybody out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.db.pool import Database
from service.errors import DatabaseUnavailable, Forbidden, StateUnavailable, Unauthorized
from service.keys import store, token
from service.keys.revocations import MemoryRevocations, RedisRevocations, Revocations
from service.state.failover import Failover

FRESH_S = 30.0
FRESH_DEGRADED_S = 1.0
STALE_S = 300.0
REMEMBERED_KEYS = 50_000
# Revocation is promised fleet-wide within 1 s; three looks a second leave room for a slow one.
POLL_EVERY_S = 0.3


@dataclass(frozen=True)
class Identity:
    """Who is calling: the key's hash and public prefix, its owner, and what it may do."""

    key_hash: bytes
    key_prefix: str
    user_id: str
    role: str
    scopes: frozenset[str]
    expires_at: datetime | None
    # This key's own limits by policy, such as {"chat": "300/minute"}; the settings' hold for the rest.
    limits: Mapping[str, str] = field(default_factory=dict)
    # Why the key is refused whatever is asked: "revoked", "inactive_user", or empty.
    refused: str = ""

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the key has the scope; `admin` has them all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"This key lacks the scope {scope!r}.", reason="scope")


class KeyVerifier:
    """Verifies tokens; `run()` follows the fleet's revocations and is owned by the composition root."""

    def __init__(
        self,
        db: Database,
        revocations: Failover[Revocations],
        shared: RedisRevocations | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db, self._revocations, self._shared, self._clock = db, revocations, shared, clock
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[Identity]] = {}
        self._cursor = ""
        self._changes = 0
        self.on_change: Callable[[bytes | None], None] = unheard

    async def verify(self, text: str) -> Identity:
        """The identity behind a token.

        Raises:
            Unauthorized: malformed, unknown, revoked or expired, or its user is inactive.
            DatabaseUnavailable: an unknown key while PostgreSQL is away.
        """
        key_hash = token.digest(text)
        if key_hash not in self._known and not token.well_formed(text):
            raise Unauthorized("The API key is malformed.", reason="malformed")
        return await self.verify_hash(key_hash)

    async def verify_hash(self, key_hash: bytes) -> Identity:
        """The identity behind a key that was shown before, as a ticket tells; raises as `verify`."""
        identity = await self._identity(key_hash)
        if identity.refused:
            raise Unauthorized("The API key is no longer valid.", reason=identity.refused)
        if identity.expires_at and identity.expires_at <= datetime.now(UTC):
            raise Unauthorized("The API key has expired.", reason="expired")
        return identity

    async def ended(self, key_hashes: Collection[bytes]) -> set[bytes]:
        """Which of these keys are no longer good, asked of PostgreSQL itself; raises DatabaseUnavailable."""
        async with self._db.connection("select_ended_keys") as connection:
            return await store.select_ended(connection, list(key_hashes))

    async def _identity(self, key_hash: bytes) -> Identity:
        known = self._known.get(key_hash)
        age = self._clock() - known[1] if known else STALE_S
        if known and age < (FRESH_DEGRADED_S if self._revocations.degraded else FRESH_S):
            return known[0]
        try:
            return await self._load_once(key_hash)
        except DatabaseUnavailable:
            if known and age < STALE_S:
                return known[0]
            raise

    async def _load_once(self, key_hash: bytes) -> Identity:
        """Many requests with one key share one query."""
        task = self._loading.get(key_hash)
        if task is None:
            task = self._loading[key_hash] = asyncio.create_task(self._load(key_hash))
            task.add_done_callback(lambda done: self._loaded(key_hash, done))
        return await asyncio.shield(task)

    def _loaded(self, key_hash: bytes, task: asyncio.Task[Identity]) -> None:
        self._loading.pop(key_hash, None)
        if not task.cancelled():
            task.exception()  # retrieved, also when every waiter has gone

    async def _load(self, key_hash: bytes) -> Identity:
        changes = self._changes
        async with self._db.connection("select_key") as connection:
            row = await store.select_key(connection, key_hash)
        if row is None:
            raise Unauthorized("The API key is unknown.", reason="unknown")
        identity = to_identity(row)
        if changes == self._changes:  # else a revocation came while we read, and the row may be the old one
            self._remember(identity)
        return identity

    def _remember(self, identity: Identity) -> None:
        self._known[identity.key_hash] = (identity, self._clock())
        self._known.move_to_end(identity.key_hash)
        if len(self._known) > REMEMBERED_KEYS:
            self._known.popitem(last=False)

    def _forget(self, key_hash: bytes) -> None:
        self._changes += 1
        self._known.pop(key_hash, None)
        self.on_change(key_hash)

    async def revoked(self, key_hash: bytes) -> None:
        """Tell every node, this one at once, that a key changed in PostgreSQL."""
        self._forget(key_hash)
        await self._revocations.call(lambda log: log.publish(key_hash))

    async def forget_all(self) -> None:
        """After an outage: what was missed is unknown, so begin again at the log's end and ask PostgreSQL anew."""
        self._cursor = ""

    async def run(self) -> None:
        """Follow the revocations of other nodes for ever."""
        while self._shared:
            await asyncio.sleep(POLL_EVERY_S)
            if not self._revocations.degraded:
                await self._follow(self._shared)

    async def _follow(self, shared: RedisRevocations) -> None:
        try:
            if not self._cursor:
                self._cursor = await shared.end()
                self._changes += 1
                self._known.clear()
                self.on_change(None)
            self._cursor, revoked = await shared.since(self._cursor)
            if isinstance(unsaid := self._revocations.memory, MemoryRevocations):
                await unsaid.republish(shared)  # one call may fail without an outage
        except StateUnavailable:
            return  # the breaker's probe sees it too; until it opens this is one missed look
        for key_hash in revoked:
            self._forget(key_hash)


def unheard(key_hash: bytes | None) -> None:
    """Nobody asked to be told of changed keys; None stands for any of them."""


def to_identity(row: store.KeyRow) -> Identity:
    refused = "revoked" if row.revoked_at else "" if row.user_active else "inactive_user"
    scopes = frozenset(row.scopes)
    return Identity(row.key_hash, row.prefix, row.user_id, row.role, scopes, row.expires_at, row.rate_limits, refused)
