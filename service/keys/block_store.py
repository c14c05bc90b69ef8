"""SQL of blocks. Every function takes the connection first; parameters are bound."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

Connection = AsyncConnection[Any]

Kind = Literal["key", "user", "address"]
KINDS: tuple[Kind, ...] = ("key", "user", "address")
# Beyond this a block list is a mistake; those that last longest are kept.
MOST_BLOCKS = 100_000
FETCHED_ROWS = 500

# Blocked again: the latest word counts, also when it is the shorter one.
UPSERT_BLOCK = """
INSERT INTO blocks (kind, subject, until, reason, blocked_by)
VALUES (%s, %s, now() + make_interval(secs => %s), %s, %s)
ON CONFLICT (kind, subject) DO UPDATE SET until = excluded.until, reason = excluded.reason,
    blocked_by = excluded.blocked_by, at = excluded.at
RETURNING until"""
# Ended blocks stay a day, for whoever asks why a user could not get in; the audit trail has them for ever.
DELETE_OLD_BLOCKS = "DELETE FROM blocks WHERE until < now() - interval '1 day'"
DELETE_BLOCK = "DELETE FROM blocks WHERE kind = %s AND subject = %s RETURNING until > now()"
SELECT_BLOCKS = """
SELECT kind, subject, extract(epoch FROM until - now())::float8, reason
FROM blocks WHERE until > now() ORDER BY until DESC LIMIT %s"""
COUNT_BLOCKS = "SELECT kind, count(*)::float8 FROM blocks WHERE until > now() GROUP BY kind"
SELECT_PAGE = """
SELECT kind, subject, until, reason, blocked_by, at
FROM blocks WHERE until > now() AND (kind, subject) > (%s, %s) ORDER BY kind, subject LIMIT %s"""


@dataclass(frozen=True)
class Subject:
    """Who is kept out: a key by its prefix, a user by id, an address or network in its shortest form."""

    kind: Kind
    subject: str


@dataclass(frozen=True)
class BlockRow:
    kind: Kind
    subject: str
    until: datetime
    reason: str
    blocked_by: str
    at: datetime


async def upsert_block(connection: Connection, who: Subject, block_s: float, reason: str, blocked_by: str) -> datetime:
    """Keep somebody out for `block_s` seconds from now; returns the moment it ends."""
    await connection.execute(DELETE_OLD_BLOCKS)
    values = (who.kind, who.subject, block_s, reason, blocked_by)
    row = await (await connection.execute(UPSERT_BLOCK, values)).fetchone()
    assert row is not None  # noqa: S101 - an upsert returns its row; mypy cannot know
    until: datetime = row[0]
    return until


async def delete_block(connection: Connection, who: Subject) -> bool:
    """Whether there was a block that had not ended."""
    row = await (await connection.execute(DELETE_BLOCK, (who.kind, who.subject))).fetchone()
    return bool(row and row[0])


async def select_blocks(connection: Connection, limit: int = MOST_BLOCKS) -> AsyncIterator[tuple[Subject, float, str]]:
    """(who, seconds left as the transaction begins, reason) of every block that has not ended, the longest first.

    By a cursor on the server: all at once would stall the loop a quarter of a second for 100,000.
    """
    async with connection.cursor(name="blocks") as cursor:
        cursor.itersize = FETCHED_ROWS
        await cursor.execute(SELECT_BLOCKS, (limit,))
        async for kind, subject, left_s, reason in cursor:
            yield Subject(kind, subject), left_s, reason


async def count_blocks(connection: Connection) -> dict[str, float]:
    """Those in force, by kind; every kind is there."""
    found = await (await connection.execute(COUNT_BLOCKS)).fetchall()
    return {**dict.fromkeys(KINDS, 0.0), **dict(found)}


async def select_page(connection: Connection, after: tuple[str, str], limit: int) -> list[BlockRow]:
    """Blocks in force behind (kind, subject), in that order."""
    async with connection.cursor(row_factory=class_row(BlockRow)) as cursor:
        return await (await cursor.execute(SELECT_PAGE, (*after, limit))).fetchall()
