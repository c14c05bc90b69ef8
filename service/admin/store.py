"""SQL of the audit trail and of backups. Every function takes the connection first; parameters are bound."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

Connection = AsyncConnection[Any]

INSERT_ACTION = """
INSERT INTO admin_audit (id, user_id, key_prefix, action, target, details, request_id, idempotency_key, body_digest)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING RETURNING id"""
SELECT_ACTION = """
SELECT id, user_id, key_prefix, action, target, details, request_id, idempotency_key, body_digest
FROM admin_audit WHERE user_id = %s AND idempotency_key = %s"""

SELECT_MOMENTS = """
SELECT coalesce((SELECT extract(epoch FROM max(at)) FROM admin_audit WHERE action = 'broadcast'), 0)::float8,
       coalesce((SELECT extract(epoch FROM max(at)) FROM backups), 0)::float8"""

INSERT_BACKUP = "INSERT INTO backups (bytes, place) VALUES (%s, %s) RETURNING at"


@dataclass(frozen=True)
class AuditRow:
    """One action: who (user_id, key_prefix), what, on what, and the request that asked for it."""

    id: uuid.UUID
    user_id: str
    key_prefix: str
    action: str
    target: str
    details: dict[str, Any]
    request_id: str
    idempotency_key: str | None
    body_digest: bytes | None  # SHA-256, 32 bytes


async def insert_action(connection: Connection, row: AuditRow) -> bool:
    """False when its id or Idempotency-Key is there already; waits for one that is being inserted just now."""
    values = (row.id, row.user_id, row.key_prefix, row.action, row.target, Jsonb(row.details), row.request_id)
    cursor = await connection.execute(INSERT_ACTION, (*values, row.idempotency_key, row.body_digest))
    return await cursor.fetchone() is not None


async def select_action(connection: Connection, user_id: str, idempotency_key: str) -> AuditRow | None:
    async with connection.cursor(row_factory=class_row(AuditRow)) as cursor:
        return await (await cursor.execute(SELECT_ACTION, (user_id, idempotency_key))).fetchone()


async def select_moments(connection: Connection) -> tuple[float, float]:
    """When a broadcast was last ordered, and a backup last recorded, as Unix time; 0: never."""
    row = await (await connection.execute(SELECT_MOMENTS)).fetchone()
    assert row is not None  # noqa: S101 - a row without a table; mypy cannot know
    return row[0], row[1]


async def insert_backup(connection: Connection, backup_bytes: int, place: str) -> datetime:
    """A backup lies at `place` since now; returns the database's now, with its time zone."""
    row = await (await connection.execute(INSERT_BACKUP, (backup_bytes, place))).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one row; mypy cannot know
    at: datetime = row[0]
    return at
