"""SQL of keys. Every function takes the connection first; parameters are bound.

PostgreSQL's clock alone decides what has expired. Nodes are told how many seconds are left, and count them on their
monotonic clocks, so that a jump of a node's wall clock ends no key.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from service.pages import Page, Place

Connection = AsyncConnection[Any]

SCOPES = ("chat", "read", "keys", "admin")
State = Literal["active", "rotating", "expired", "revoked"]

INSERT_KEY = """
INSERT INTO api_keys (key_hash, prefix, user_id, name, scopes, expires_at, rate_limits)
VALUES (%(key_hash)s, %(prefix)s, %(user_id)s, %(name)s, %(scopes)s,
        coalesce(%(expires_at)s, now() + make_interval(days => %(days)s)), %(rate_limits)s)"""
KEY_COLUMNS = """
SELECT k.key_hash, k.prefix, k.user_id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.rate_limits,
       k.replaced_by, extract(epoch FROM k.expires_at - now())::float8 AS left_s,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired'
            WHEN k.replaced_by IS NOT NULL THEN 'rotating' ELSE 'active' END AS state,
       u.role, u.active AS user_active
FROM api_keys k JOIN users u ON u.id = k.user_id"""
SELECT_KEY_BY_HASH = KEY_COLUMNS + " WHERE k.key_hash = %s"
SELECT_KEY_BY_PREFIX = KEY_COLUMNS + " WHERE k.prefix = %s"
LOCK_KEY = " FOR NO KEY UPDATE OF k"
SELECT_KEYS = KEY_COLUMNS + " WHERE %s::text IS NULL OR u.username = %s OR u.id = %s ORDER BY k.created_at, k.prefix"
SELECT_KEY_PAGE = (
    KEY_COLUMNS
    + """
WHERE (%(user_id)s::text IS NULL OR k.user_id = %(user_id)s)
  AND (%(at)s::timestamptz IS NULL OR (k.created_at, k.prefix) < (%(at)s, %(prefix)s))
ORDER BY k.created_at DESC, k.prefix DESC LIMIT %(rows)s"""
)
# Those a rotation has replaced are counted by themselves: they end within days, and must not keep others from rotating.
SELECT_LIVE_COUNTS = """
SELECT count(*) FILTER (WHERE replaced_by IS NULL), count(*) FILTER (WHERE replaced_by IS NOT NULL)
FROM api_keys WHERE user_id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""
SELECT_LIVE_HASHES = """
SELECT key_hash FROM api_keys
WHERE user_id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""
UPDATE_REVOKED = """
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE prefix = %s RETURNING key_hash"""
# least() passes over NULL; a grace of 0 s is a revocation.
UPDATE_REPLACED = """
UPDATE api_keys SET replaced_by = %(by)s, expires_at = least(expires_at, now() + make_interval(secs => %(grace_s)s)),
                    revoked_at = CASE WHEN %(grace_s)s = 0 THEN now() END
WHERE prefix = %(prefix)s"""
SELECT_STANDINGS = """
SELECT h, CASE WHEN k.key_hash IS NULL THEN 'unknown' WHEN k.revoked_at IS NOT NULL THEN 'revoked'
               WHEN NOT u.active THEN 'inactive_user' WHEN k.expires_at <= now() THEN 'expired' ELSE '' END,
       extract(epoch FROM k.expires_at - now())::float8
FROM unnest(%s::bytea[]) AS h LEFT JOIN api_keys k ON k.key_hash = h LEFT JOIN users u ON u.id = k.user_id"""


@dataclass(frozen=True)
class KeyRow:
    """A key joined with its owner; the secret itself is nowhere.

    `state` is active, rotating (replaced, and still good for a grace), expired or revoked. `left_s` says how many
    seconds were left when it was read; None: it does not expire.
    """

    key_hash: bytes
    prefix: str
    user_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    role: str
    user_active: bool
    rate_limits: dict[str, str] = field(default_factory=dict)
    replaced_by: str | None = None
    left_s: float | None = None
    state: State = "active"


@dataclass(frozen=True)
class NewKey:
    """A key to be stored. It ends at `expires_at`, or `days` from now, or never."""

    key_hash: bytes
    prefix: str
    user_id: str
    name: str
    scopes: list[str]
    expires_at: datetime | None
    days: int | None
    rate_limits: dict[str, str]


@dataclass(frozen=True)
class Standing:
    """Whether a key is good: `reason` says why it is not (revoked, expired, inactive_user, unknown), or is empty.

    `left_s`: seconds until it expires, None for a key that does not.
    """

    reason: str
    left_s: float | None


async def insert_key(connection: Connection, key: NewKey) -> None:
    await connection.execute(INSERT_KEY, vars(key) | {"rate_limits": Jsonb(key.rate_limits)})


async def select_key(connection: Connection, key_hash: bytes) -> KeyRow | None:
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        return await (await cursor.execute(SELECT_KEY_BY_HASH, (key_hash,))).fetchone()


async def select_key_by_prefix(connection: Connection, prefix: str, lock: bool = False) -> KeyRow | None:
    """With `lock` nobody else changes it until the transaction ends."""
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        return await (await cursor.execute(SELECT_KEY_BY_PREFIX + LOCK_KEY * lock, (prefix,))).fetchone()


async def select_keys(connection: Connection, owner: str | None = None) -> list[KeyRow]:
    """Every key, or those of one user by username or id."""
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        return await (await cursor.execute(SELECT_KEYS, (owner, owner, owner))).fetchall()


async def select_key_page(connection: Connection, user_id: str | None, after: Place | None, limit: int) -> Page[KeyRow]:
    """Keys of one user, or of all (None), the newest first."""
    place = {"at": after and after.at, "prefix": after and after.name}
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        await cursor.execute(SELECT_KEY_PAGE, place | {"user_id": user_id, "rows": limit + 1})
        return Page.of(await cursor.fetchall(), limit, lambda row: Place(row.created_at, row.prefix))


async def select_live_counts(connection: Connection, user_id: str) -> tuple[int, int]:
    """How many keys of a user are good: active ones, and those in the grace of a rotation."""
    row = await (await connection.execute(SELECT_LIVE_COUNTS, (user_id,))).fetchone()
    return (row[0], row[1]) if row else (0, 0)


async def select_live_hashes(connection: Connection, user_id: str) -> list[bytes]:
    """The hashes of a user's keys that are neither revoked nor expired."""
    return [row[0] for row in await (await connection.execute(SELECT_LIVE_HASHES, (user_id,))).fetchall()]


async def update_revoked(connection: Connection, prefix: str) -> bytes | None:
    """Mark a key revoked (again is fine); its hash, or None when there is no such key."""
    row = await (await connection.execute(UPDATE_REVOKED, (prefix,))).fetchone()
    return row[0] if row else None


async def update_replaced(connection: Connection, prefix: str, by: str, grace_s: int) -> None:
    """Let a key end after `grace_s`, or at its own end when that is sooner; `by` is the prefix of the new one."""
    await connection.execute(UPDATE_REPLACED, {"prefix": prefix, "by": by, "grace_s": grace_s})


async def select_standings(connection: Connection, key_hashes: list[bytes]) -> dict[bytes, Standing]:
    rows = await (await connection.execute(SELECT_STANDINGS, (key_hashes,))).fetchall()
    return {key_hash: Standing(reason, left_s) for key_hash, reason, left_s in rows}
