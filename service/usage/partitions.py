"""The months of api_usage: made ahead, dropped when they are old; and the age of the sums."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import structlog
from psycopg import AsyncConnection

from service.background import Ran, unwatched
from service.db.pool import Database
from service.errors import DatabaseUnavailable

log = structlog.get_logger()

# Any constant of ours will do; it only has to differ from other locks in the same database.
LOCK = 0x757361
KEEP_EVERY_S = 86_400.0
RETRY_S = 60.0
MONTHS_AHEAD = 2
# Sums are deleted so many at a time, well within DB_TIMEOUT.
DELETED_AT_ONCE = 5000

TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s)"
# Attaching and dropping wait for running inserts, and new inserts wait for them: better to try again later.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
MAKE_PARTITION = "SELECT make_usage_partition(%s)"
DROP_PARTITIONS = "SELECT drop_usage_partitions(%s)"
DELETE_HOURLY = """
DELETE FROM usage_hourly WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_hourly WHERE start < %s LIMIT %s))"""
DELETE_DAILY = """
DELETE FROM usage_daily WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_daily WHERE start < %s LIMIT %s))"""


@dataclass(frozen=True)
class Retention:
    """Whole months before the current one."""

    rows_months: int
    daily_months: int


class Partitions:
    """`run()` is owned by the composition root; of all nodes and workers one at a time does the work."""

    def __init__(
        self,
        db: Database,
        retention: Retention,
        clock: Callable[[], datetime] | None = None,
        ran: Ran = unwatched,
    ) -> None:
        self._db, self._retention, self._clock, self._ran = db, retention, clock, ran

    async def run(self) -> None:
        """At the start, then daily; sooner when it did not succeed, or another process was at it."""
        while True:
            done = False
            try:
                done = await self.keep()
            except DatabaseUnavailable as error:
                log.info("usage.partitions_later", error=type(error.__cause__).__name__)
            await asyncio.sleep(KEEP_EVERY_S if done else RETRY_S)

    async def keep(self) -> bool:
        """Make this month and the next ones, drop what is too old; raises DatabaseUnavailable.

        False where another process was at some of it: it may still fail.
        """
        today = await self._today()
        oldest = month(today, -self._retention.rows_months)
        done = [
            await self._make([month(today, ahead) for ahead in range(MONTHS_AHEAD + 1)]),
            await self._drop(oldest),
            await self._delete(DELETE_HOURLY, oldest),
            await self._delete(DELETE_DAILY, month(today, -self._retention.daily_months)),
        ]
        if all(done):
            self._ran()
        return all(done)

    async def _today(self) -> date:
        """PostgreSQL's, UTC: a node whose clock is wrong by years must not drop what others count by."""
        if self._clock:
            return self._clock().astimezone(UTC).date()
        async with self._db.connection("select_today") as connection:
            row = await (await connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date")).fetchone()
        assert row is not None  # noqa: S101
        today: date = row[0]
        return today

    async def _make(self, months: list[date]) -> bool:
        async with self._db.connection("make_usage_partitions") as connection:
            if not await alone(connection):
                return False
            for first in months:
                row = await (await connection.execute(MAKE_PARTITION, (first,))).fetchone()
                if row and row[0]:
                    log.info("usage.partition_made", month=f"{first:%Y-%m}")
        return True

    async def _drop(self, before: date) -> bool:
        async with self._db.connection("drop_usage_partitions") as connection:
            if not await alone(connection):
                return False
            for (name,) in await (await connection.execute(DROP_PARTITIONS, (before,))).fetchall():
                log.info("usage.partition_dropped", partition=name)
        return True

    async def _delete(self, sql: str, before: date) -> bool:
        start, deleted = datetime(before.year, before.month, 1, tzinfo=UTC), DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            async with self._db.connection("delete_usage_sums") as connection:
                if not await alone(connection):
                    return False
                deleted = (await connection.execute(sql.encode(), (start, DELETED_AT_ONCE))).rowcount
        return True


async def alone(connection: AsyncConnection[Any]) -> bool:
    """Whether this transaction holds the lock; bounds how long it waits for any other."""
    await connection.execute(LOCK_TIMEOUT)
    row = await (await connection.execute(TRY_LOCK, (LOCK,))).fetchone()
    return bool(row and row[0])


def month(day: date, later: int) -> date:
    """The first day of the month so many months later."""
    months = day.year * 12 + day.month - 1 + later
    return date(months // 12, months % 12 + 1, 1)
