"""Usage rows into PostgreSQL: the row and the hour's and day's sums in one statement, which is its own transaction."""

import zlib
from collections.abc import Sequence

from pydantic_core import to_json

from service.db.pool import Database
from service.errors import DatabaseRejected
from service.usage.row import UsageRow

# One JSON parameter however many rows: adapting twelve arrays cost more time than the insert. The function is in the
# migrations, where its plan is kept with the connection: the same statement sent whole took twice the time.
STORE_USAGE = "SELECT store_usage(%s::json, %s::smallint)"
# Nodes of one shard wait for each other's row locks, and each shard is a row more for every sum: a few will do.
SHARDS = 8


class Store:
    def __init__(self, db: Database, node: str) -> None:
        """`node` is this node's name; it picks the shard of the sums that this node adds to."""
        self._db, self._shard = db, zlib.crc32(node.encode()) % SHARDS

    @property
    def up(self) -> bool:
        return self._db.up

    async def insert(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        """Store the rows that are not there yet; returns those that the database refuses.

        One row that is refused must not cost the others theirs: halve until it stands alone.

        Raises:
            DatabaseUnavailable: what is stored is unknown; storing all of it again does no harm.
        """
        try:
            await self._db.execute("insert_usage", STORE_USAGE, [to_json(rows).decode(), self._shard])
        except DatabaseRejected:
            if len(rows) == 1:
                return list(rows)
            middle = len(rows) // 2
            return [*await self.insert(rows[:middle]), *await self.insert(rows[middle:])]
        return []
