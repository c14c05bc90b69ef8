"""Users who are kept out until a time, known by heart: asking costs a dictionary look-up.

PostgreSQL has the truth and is read every RELOAD_EVERY_S; the bus tells of a change at once. How long a block still
lasts is computed by PostgreSQL and kept on the monotonic clock, so that a jump of a node's wall clock lets nobody in.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from psycopg import AsyncConnection

from service.db.pool import Database
from service.errors import Blocked, DatabaseUnavailable

log = structlog.get_logger()

Connection = AsyncConnection[Any]

RELOAD_EVERY_S = 5.0
# Beyond this a block list is a mistake; those that last longest are kept.
MOST_BLOCKS = 100_000
FETCHED_ROWS = 500

# Blocked again: the latest word counts, also when it is the shorter one.
UPSERT_BLOCK = """
INSERT INTO user_blocks (user_id, until, reason, blocked_by) VALUES (%s, now() + make_interval(secs => %s), %s, %s)
ON CONFLICT (user_id) DO UPDATE SET until = excluded.until, reason = excluded.reason,
    blocked_by = excluded.blocked_by, at = excluded.at
RETURNING until"""
# Ended blocks stay a day, for whoever asks why a user could not get in; the audit trail has them for ever.
DELETE_OLD_BLOCKS = "DELETE FROM user_blocks WHERE until < now() - interval '1 day'"
DELETE_BLOCK = "DELETE FROM user_blocks WHERE user_id = %s RETURNING until > now()"
SELECT_BLOCKS = """
SELECT user_id, extract(epoch FROM until - now())::float8, reason
FROM user_blocks WHERE until > now() ORDER BY until DESC LIMIT %s"""


async def upsert_block(connection: Connection, user_id: str, block_s: float, reason: str, blocked_by: str) -> datetime:
    """Keep a user out for `block_s` seconds from now; returns the moment it ends."""
    await connection.execute(DELETE_OLD_BLOCKS)
    row = await (await connection.execute(UPSERT_BLOCK, (user_id, block_s, reason, blocked_by))).fetchone()
    assert row is not None  # noqa: S101 - an upsert returns its row; mypy cannot know
    until: datetime = row[0]
    return until


async def delete_block(connection: Connection, user_id: str) -> bool:
    """Whether there was a block that had not ended."""
    row = await (await connection.execute(DELETE_BLOCK, (user_id,))).fetchone()
    return bool(row and row[0])


async def select_blocks(connection: Connection, limit: int = MOST_BLOCKS) -> AsyncIterator[tuple[str, float, str]]:
    """(user_id, seconds left as the transaction begins, reason) of every block that has not ended, the longest first.

    By a cursor on the server: all at once would stall the loop a quarter of a second for 100,000.
    """
    async with connection.cursor(name="blocks") as cursor:
        cursor.itersize = FETCHED_ROWS
        await cursor.execute(SELECT_BLOCKS, (limit,))
        async for user_id, left_s, reason in cursor:
            yield user_id, left_s, reason


def unheard(user_id: str, reason: str) -> None:
    """Nobody asked to be told of those who are blocked now and were not before."""


@dataclass(frozen=True, slots=True)
class Block:
    deadline: float  # on the monotonic clock
    reason: str


class Blocks:
    """Who is kept out; `run()` follows PostgreSQL and is owned by the composition root."""

    def __init__(
        self, db: Database, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._db, self._clock, self._wall = db, clock, wall
        self._blocked: dict[str, Block] = {}
        self.on_block: Callable[[str, str], None] = unheard
        self._heard: dict[str, Block | None] = {}  # since the load under way began; None: lifted

    def check(self, user_id: str) -> None:
        """Raises Blocked, with the seconds that are left."""
        block = self._blocked.get(user_id)
        if block is None:
            return
        left_s = block.deadline - self._clock()
        if left_s > 0:
            raise Blocked(block.reason or "This user is blocked.", retry_after_s=left_s, reason="blocked")

    def heard(self, user_id: str, until_s: float, reason: str = "") -> None:
        """Believe the bus at once: blocked until `until_s` (Unix seconds), or no longer when that is past or 0.

        Two machines' wall clocks may differ; the next load puts right what that makes of the time left.
        """
        left_s = until_s - self._wall()
        block = Block(self._clock() + left_s, reason) if left_s > 0 else None
        self._set(user_id, block)
        self._heard[user_id] = block

    def _set(self, user_id: str, block: Block | None) -> None:
        if block is None:
            self._blocked.pop(user_id, None)
        elif user_id in self._blocked or len(self._blocked) < MOST_BLOCKS:
            self._blocked[user_id] = block

    async def run(self) -> None:
        """Load for ever."""
        while True:
            await self.load()
            await asyncio.sleep(RELOAD_EVERY_S)

    async def load(self) -> None:
        """Take over what PostgreSQL says; while it is away, what is known stays."""
        self._heard = {}
        try:
            async with self._db.connection("select_blocks") as connection:
                asked = self._clock()  # before the question: nobody is kept out longer than was said
                rows = select_blocks(connection)
                blocked = {user_id: Block(asked + left_s, reason) async for user_id, left_s, reason in rows}
        except DatabaseUnavailable:
            return
        if len(blocked) == MOST_BLOCKS:
            log.warning("blocks.too_many", loaded=len(blocked))
        before, self._blocked = self._blocked, blocked
        for user_id in blocked.keys() - before.keys():
            self.on_block(user_id, blocked[user_id].reason)
        for user_id, block in self._heard.items():  # the rows may have been read before these
            self._set(user_id, block)
