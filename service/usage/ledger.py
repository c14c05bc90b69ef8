"""The durable ledger of usage: an answer is acknowledged once its row is committed.

Group commit: rows that arrive while one commit is under way share the next, so that throughput does not pay a round
trip and an fsync each. A row's id is unique and inserting it again does nothing, so a retry cannot count twice.
"""

import asyncio
import time
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic_core import to_json

from service.db.pool import Database
from service.errors import AtpError, DatabaseRejected, DatabaseUnavailable
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

BATCH_ROWS = 1000
# About ten seconds at full speed; beyond it the database is lost and callers are told so at once.
QUEUE_ROWS = 20_000
CLOSE_TIMEOUT_S = 5.0

# One JSON parameter however many rows: adapting twelve arrays cost more time than the insert.
INSERT_USAGE = """
INSERT INTO api_usage (id, request_id, "timestamp", key_hash, user_id, agent, model, tokens_in, tokens_out, cached,
                       status, duration_s)
SELECT id, request_id, "timestamp", decode(key_hash, 'hex'), user_id, agent, model, tokens_in, tokens_out, cached,
       status, duration_s
FROM json_to_recordset(%s::json) AS new (
    id uuid, request_id text, "timestamp" timestamptz, key_hash text, user_id text, agent text, model text,
    tokens_in integer, tokens_out integer, cached boolean, status smallint, duration_s double precision)
ON CONFLICT (id) DO NOTHING"""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One metered request; its fields are INSERT_USAGE's columns. `status` is HTTP's; 499: the client left."""

    id: uuid.UUID
    request_id: str
    timestamp: datetime
    key_hash: str  # hexadecimal
    user_id: str
    agent: str
    model: str
    tokens_in: int
    tokens_out: int
    cached: bool
    status: int
    duration_s: float


Waiting = tuple[UsageRow, "asyncio.Future[None]"]


class Ledger:
    """Takes rows; `run()` commits them in groups and is owned by the composition root."""

    def __init__(self, db: Database, metrics: Metrics) -> None:
        self._db = db
        self._stored = metrics.usage_rows.labels("stored")
        self._failed = metrics.usage_rows.labels("failed")
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()

    def require_open(self) -> None:
        """Raises DatabaseUnavailable while rows cannot be stored: ask before paying a model for nothing."""
        if not self._db.up:
            raise DatabaseUnavailable("Usage cannot be recorded now.")

    async def record(self, row: UsageRow) -> None:
        """Return once the row is committed; raises DatabaseUnavailable when it is not."""
        await asyncio.shield(self.enqueue(row))

    def enqueue(self, row: UsageRow) -> asyncio.Future[None]:
        """Hand a row over without waiting, for callers that are being cancelled; a row that is lost is logged."""
        if len(self._waiting) >= QUEUE_ROWS:
            self._lost(row)
            raise DatabaseUnavailable("Usage cannot be recorded now.")
        stored = asyncio.get_running_loop().create_future()
        stored.add_done_callback(asyncio.Future.exception)  # retrieved, whether or not anybody waits
        self._waiting.append((row, stored))
        self._arrived.set()
        return stored

    async def run(self) -> None:
        """Commit what arrives, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._commit()

    async def close(self) -> None:
        """Commit what still waits, for about CLOSE_TIMEOUT_S; call after `run()` was cancelled."""
        ends_at = time.monotonic() + CLOSE_TIMEOUT_S
        while self._waiting and time.monotonic() < ends_at:
            await self._commit()
        for row, _ in self._waiting:
            self._lost(row)

    async def _commit(self, most: int = BATCH_ROWS) -> None:
        batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        try:
            await self._insert([row for row, _ in batch])
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(batch))
            raise
        except DatabaseUnavailable as error:
            self._fail(batch, error)
        except DatabaseRejected as error:
            await self._find_the_bad_one(batch, error)
        except Exception:  # whatever it was, nobody may wait for ever; the owner logs it and starts us again
            self._fail(batch, DatabaseUnavailable("Usage cannot be recorded now."))
            raise
        else:
            self._stored.inc(len(batch))
            for _, stored in batch:
                stored.set_result(None)

    async def _find_the_bad_one(self, batch: list[Waiting], error: DatabaseRejected) -> None:
        """One row that the database refuses must not cost the others theirs: halve until it stands alone."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        self._waiting.extendleft(reversed(batch))
        middle = len(batch) // 2
        await self._commit(middle)
        await self._commit(len(batch) - middle)

    def _fail(self, batch: list[Waiting], error: AtpError) -> None:
        for row, stored in batch:
            self._lost(row)
            stored.set_exception(error)

    async def _insert(self, rows: list[UsageRow]) -> None:
        await self._db.execute("insert_usage", INSERT_USAGE, [to_json(rows).decode()])

    def _lost(self, row: UsageRow) -> None:
        self._failed.inc()
        log.error("usage.row_lost", usage_id=str(row.id), user_id=row.user_id, agent=row.agent, model=row.model,
                  tokens_in=row.tokens_in, tokens_out=row.tokens_out, status=row.status)  # fmt: skip
