"""SQL of users and keys. Every function takes the connection first; parameters are bound."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

Connection = AsyncConnection[Any]

SCOPES = ("chat", "read", "keys", "admin")

INSERT_USER = "INSERT INTO users (id, email, username, role) VALUES (%s, %s, %s, %s)"
SELECT_USERS = "SELECT id, email, username, role, active FROM users ORDER BY created_at, id LIMIT %s"
SELECT_USER_ID = "SELECT id FROM users WHERE username = %s OR id = %s ORDER BY username = %s DESC LIMIT 1"
INSERT_KEY = """
INSERT INTO api_keys (key_hash, prefix, user_id, name, scopes, expires_at) VALUES (%s, %s, %s, %s, %s, %s)"""
KEY_COLUMNS = """
SELECT k.key_hash, k.prefix, k.user_id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at,
       k.rate_limits, u.role, u.active AS user_active
FROM api_keys k JOIN users u ON u.id = k.user_id"""
SELECT_KEY_BY_HASH = KEY_COLUMNS + " WHERE k.key_hash = %s"
SELECT_KEYS = KEY_COLUMNS + " WHERE %s::text IS NULL OR u.username = %s OR u.id = %s ORDER BY k.created_at, k.prefix"
UPDATE_REVOKED = """
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE prefix = %s RETURNING key_hash"""

SELECT_ENDED = """
SELECT h FROM unnest(%s::bytea[]) AS h
WHERE NOT EXISTS (
    SELECT FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.key_hash = h AND k.revoked_at IS NULL AND u.active AND (k.expires_at IS NULL OR k.expires_at > now()))"""


@dataclass(frozen=True)
class User:
    id: str
    email: str
    username: str
    role: str
    active: bool


@dataclass(frozen=True)
class KeyRow:
    """A key joined with its owner; the secret itself is nowhere."""

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


async def insert_user(connection: Connection, user: User) -> None:
    """Raises Conflict (by `Database.connection`) when the email or username is taken."""
    await connection.execute(INSERT_USER, (user.id, user.email, user.username, user.role))


async def select_users(connection: Connection, limit: int = 1000) -> list[User]:
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        return await (await cursor.execute(SELECT_USERS, (limit,))).fetchall()


async def select_user_id(connection: Connection, name: str) -> str | None:
    """The id of the user with this username, else with this id."""
    row = await (await connection.execute(SELECT_USER_ID, (name, name, name))).fetchone()
    return row[0] if row else None


async def insert_key(connection: Connection, key: KeyRow) -> None:
    await connection.execute(INSERT_KEY, (key.key_hash, key.prefix, key.user_id, key.name, key.scopes, key.expires_at))


async def select_key(connection: Connection, key_hash: bytes) -> KeyRow | None:
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        return await (await cursor.execute(SELECT_KEY_BY_HASH, (key_hash,))).fetchone()


async def select_keys(connection: Connection, owner: str | None = None) -> list[KeyRow]:
    """Every key, or those of one user by username or id."""
    async with connection.cursor(row_factory=class_row(KeyRow)) as cursor:
        return await (await cursor.execute(SELECT_KEYS, (owner, owner, owner))).fetchall()


async def update_revoked(connection: Connection, prefix: str) -> bytes | None:
    """Mark a key revoked (again is fine); its hash, or None when there is no such key."""
    row = await (await connection.execute(UPDATE_REVOKED, (prefix,))).fetchone()
    return row[0] if row else None


async def select_ended(connection: Connection, key_hashes: list[bytes]) -> set[bytes]:
    """Those that are revoked, expired, unknown, or of an inactive user."""
    rows = await (await connection.execute(SELECT_ENDED, (key_hashes,))).fetchall()
    return {row[0] for row in rows}
