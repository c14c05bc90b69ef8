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
from datetime import datetime
from functools import partial

from service.db.pool import Database
from service.errors import DatabaseUnavailable, Forbidden, StateUnavailable, Unauthorized
from service.keys import store, token
from service.keys.revocations import READ_COUNT, MemoryRevocations, RedisRevocations, Revocations
from service.keys.store import Standing
from service.state.failover import Failover
from service.telemetry.operations import wait_for

FRESH_S = 30.0
FRESH_DEGRADED_S = 1.0
STALE_S = 300.0
# A known key does not wait longer to be looked up again: a PostgreSQL that is slower may be away, which the pool finds
# out by itself; the look goes on for those who come later.
REFRESH_S = 0.5
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
    # `expires_at` on this process's monotonic clock, in seconds, as PostgreSQL's clock had it; None: it does not end.
    ends_at: float | None = None

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the key has the scope; `admin` has them all."""
        if scope not in self.scopes and not self.is_admin:
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
        # When a key was last found good. It outlives what is forgotten because a revocation may have been missed.
        self._good: OrderedDict[bytes, float] = OrderedDict()
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

    def remembers(self, text: str) -> bool:
        """Whether this node has found the token good within STALE_S, and heard of no change; asks nobody.

        It is no word on whether the key is good still: `verify` has that.
        """
        return self._clock() - self._good.get(token.digest(text), -STALE_S) < STALE_S

    async def verify_hash(self, key_hash: bytes) -> Identity:
        """The identity behind a key that was shown before, as a ticket tells; raises as `verify`."""
        identity = await self._identity(key_hash)
        if identity.refused:
            raise Unauthorized("The API key is no longer valid.", reason=identity.refused)
        if identity.ends_at is not None and identity.ends_at <= self._clock():
            raise Unauthorized("The API key has expired.", reason="expired")
        return identity

    async def standings(self, key_hashes: Collection[bytes]) -> dict[bytes, Standing]:
        """Whether each of these keys is good, asked of PostgreSQL itself; raises DatabaseUnavailable."""
        async with self._db.connection("select_key_standings") as connection:
            return await store.select_standings(connection, list(key_hashes))

    async def _identity(self, key_hash: bytes) -> Identity:
        known = self._known.get(key_hash)
        age = self._clock() - known[1] if known else STALE_S
        if known and age < (FRESH_DEGRADED_S if self._revocations.degraded else FRESH_S):
            return known[0]
        try:
            async with asyncio.timeout(REFRESH_S if known and age < STALE_S else None):
                return await self._load_once(key_hash)
        except (DatabaseUnavailable, TimeoutError):
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
        with wait_for("select_key"):
            return await asyncio.shield(task)

    def _loaded(self, key_hash: bytes, task: asyncio.Task[Identity]) -> None:
        self._loading.pop(key_hash, None)
        if not task.cancelled():
            task.exception()  # retrieved, also when every waiter has gone

    async def _load(self, key_hash: bytes) -> Identity:
        changes = self._changes
        async with self._db.connection("select_key") as connection:
            asked = self._clock()
            row = await store.select_key(connection, key_hash)
        if row is None:
            raise Unauthorized("The API key is unknown.", reason="unknown")
        identity = to_identity(row, asked)
        if changes == self._changes:  # else a revocation came while we read, and the row may be the old one
            self._remember(identity)
        return identity

    def _remember(self, identity: Identity) -> None:
        self._known[identity.key_hash] = (identity, self._clock())
        self._known.move_to_end(identity.key_hash)
        if len(self._known) > REMEMBERED_KEYS:
            self._known.popitem(last=False)
        if not identity.refused:
            self._good[identity.key_hash] = self._clock()
            self._good.move_to_end(identity.key_hash)
        if len(self._good) > REMEMBERED_KEYS:
            self._good.popitem(last=False)

    def _forget(self, key_hash: bytes) -> None:
        self._changes += 1
        self._known.pop(key_hash, None)
        self._good.pop(key_hash, None)
        self.on_change(key_hash)

    async def revoked(self, *key_hashes: bytes) -> None:
        """Tell every node, this one at once, that keys changed in PostgreSQL."""
        for key_hash in key_hashes:
            self._forget(key_hash)
        for key_hash in key_hashes:
            await self._revocations.call(partial(published, key_hash))

    async def forget_all(self) -> None:
        """After an outage: what was missed is unknown, so begin again at the log's end and ask PostgreSQL anew."""
        self._cursor = ""

    async def run(self) -> None:
        """Follow the revocations of other nodes for ever."""
        while self._shared:  # the first look before the first request: it forgets every key
            if not self._revocations.degraded:
                await self._follow(self._shared)
            await asyncio.sleep(POLL_EVERY_S)

    async def _follow(self, shared: RedisRevocations) -> None:
        try:
            if not self._cursor:
                self._cursor = await shared.end()
                self._changes += 1
                self._known.clear()
                self.on_change(None)
            await self._hear(shared)
            if isinstance(unsaid := self._revocations.memory, MemoryRevocations):
                await unsaid.republish(shared)  # one call may fail without an outage
        except StateUnavailable:
            return  # the breaker's probe sees it too; until it opens this is one missed look

    async def _hear(self, shared: RedisRevocations) -> None:
        """Everything that was said by now: after a flood there is more than one answer holds."""
        revoked = [b""] * READ_COUNT
        while len(revoked) >= READ_COUNT:
            self._cursor, revoked = await shared.since(self._cursor)
            for key_hash in revoked:
                self._forget(key_hash)


def unheard(key_hash: bytes | None) -> None:
    """Nobody asked to be told of changed keys; None stands for any of them."""


async def published(key_hash: bytes, log: Revocations) -> None:
    await log.publish(key_hash)


def to_identity(row: store.KeyRow, asked: float) -> Identity:
    """`asked` is when the row was, on the monotonic clock. The scope `admin` counts while its user has that role."""
    refused = "revoked" if row.revoked_at else "" if row.user_active else "inactive_user"
    scopes = frozenset(scope for scope in row.scopes if scope != "admin" or row.role == "admin")
    ends_at = None if row.left_s is None else asked + row.left_s
    about = (row.prefix, row.user_id, row.role, scopes, row.expires_at, row.rate_limits, refused, ends_at)
    return Identity(row.key_hash, *about)
