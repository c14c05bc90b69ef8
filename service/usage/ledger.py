"""The durable ledger of usage: an answer is acknowledged once its row is in PostgreSQL or, while PostgreSQL does not
take it, on this node's disk.

Group commit: rows that arrive while one commit is under way share the next, so that throughput does not pay a round
trip and an fsync each. A row's id is unique and inserting it again does nothing, so a retry cannot count twice.

A commit that fails, or takes longer than OVERDUE_S, goes to the spool; from then on every row does, until the replay
has found that PostgreSQL commits again. So an outage costs the callers of one commit half a second, and others nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable

import structlog

from service.errors import AtpError, DatabaseRejected, DatabaseUnavailable
from service.telemetry.metrics import Metrics
from service.telemetry.operations import UNSEEN, Wait, wait_for
from service.usage.row import UsageRow as UsageRow
from service.usage.spool import Spool
from service.usage.store import Store

log = structlog.get_logger()

BATCH_ROWS = 1000
# About ten seconds at full speed; beyond it neither the database nor the disk keeps up, and callers are told at once.
QUEUE_ROWS = 20_000
# A commit takes milliseconds. Callers are promised an answer within 2 s, most of which is the model's.
OVERDUE_S = 0.5
CLOSE_TIMEOUT_S = 5.0

Waiting = tuple[UsageRow, "asyncio.Future[None]", Wait]
Commit = asyncio.Task[list[UsageRow]]


class Ledger:
    """Takes rows; `run()` makes them durable in groups and is owned by the composition root."""

    def __init__(self, store: Store, spool: Spool, metrics: Metrics) -> None:
        self._store, self._spool = store, spool
        self._stored = metrics.usage_rows.labels("stored")
        self._spooled = metrics.usage_rows.labels("spooled")
        self._failed = metrics.usage_rows.labels("failed")
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._direct = True  # whether PostgreSQL is believed to commit
        self._commits: set[Commit] = set()

    def require_open(self) -> None:
        """Raises DatabaseUnavailable while rows cannot be kept: ask before paying a model for nothing."""
        if not (self._store.up or self._spool.usable):
            raise DatabaseUnavailable("Usage cannot be recorded now.")

    async def record(self, row: UsageRow) -> None:
        """Return once the row is durable; raises DatabaseUnavailable or DatabaseRejected when it is not."""
        with wait_for("usage") as wait:
            await self._noted(row, wait)

    def enqueue(self, row: UsageRow) -> asyncio.Future[None]:
        """Hand a row over without waiting, for callers that are being cancelled; a row that is lost is logged."""
        durable = self._noted(row, UNSEEN)
        durable.add_done_callback(retrieve)
        return durable

    def _noted(self, row: UsageRow, wait: Wait) -> asyncio.Future[None]:
        """Whoever waits for it may be cancelled, and it with him: the row is made durable all the same."""
        if len(self._waiting) >= QUEUE_ROWS:
            self._lost(row)
            raise DatabaseUnavailable("Usage cannot be recorded now.")
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, durable, wait))
        self._arrived.set()
        return durable

    async def run(self) -> None:
        """Make durable what arrives, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._settle_some()

    def database_works(self) -> None:
        """The replay has committed: rows go to PostgreSQL again."""
        if not self._direct:
            self._direct = True
            log.info("usage.direct")

    async def close(self) -> None:
        """Make durable what still waits, for about CLOSE_TIMEOUT_S; call after `run()` was cancelled."""
        ends_at = time.monotonic() + CLOSE_TIMEOUT_S
        while self._waiting and time.monotonic() < ends_at:
            await self._settle_some()
        for row, *_ in self._waiting:
            self._lost(row)
        if self._commits:
            await asyncio.wait(self._commits, timeout=CLOSE_TIMEOUT_S)

    async def _settle_some(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_ROWS, len(self._waiting)))]
        try:
            await self._settle(batch)
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(batch))
            raise

    async def _settle(self, batch: list[Waiting]) -> None:
        """1. Commit, unless PostgreSQL is believed away and there is room on the disk. 2. When it fails or is overdue:
        to the spool. 3. When that refuses: wait for the commit after all, and fail the batch with it."""
        rows, commit = [row for row, *_ in batch], None
        for *_, wait in batch:
            wait.sent()
        if self._direct or not self._spool.usable:
            commit = self._begin_commit(rows)
            await asyncio.wait({commit}, timeout=OVERDUE_S if self._spool.usable else None)
            if committed(commit):
                self._commit_counts(batch, commit.result())
                return
            self._distrust(commit)
        try:
            await self._spool.append(rows)
        except DatabaseUnavailable as error:
            await self._last_resort(batch, commit, error)
        else:
            self._spooled.inc(len(batch))
            acknowledge(batch)

    def _begin_commit(self, rows: list[UsageRow]) -> Commit:
        """A task, so that nobody has to cancel it: once overdue it goes on, until the pool's deadline cuts it."""
        commit = asyncio.create_task(self._store.insert(rows), name="usage-commit")
        self._commits.add(commit)
        commit.add_done_callback(self._commit_ended)
        return commit

    def _commit_ended(self, commit: Commit) -> None:
        self._commits.discard(commit)
        if not commit.cancelled():
            commit.exception()  # retrieved, also when it was overdue

    def _commit_counts(self, batch: list[Waiting], refused: list[UsageRow]) -> None:
        self._direct = True
        if refused:
            ids = {row.id for row in refused}
            self._fail([one for one in batch if one[0].id in ids], DatabaseRejected("The database refused the data."))
            batch = [one for one in batch if one[0].id not in ids]
        self._stored.inc(len(batch))
        acknowledge(batch)

    def _distrust(self, commit: Commit) -> None:
        if self._direct:
            fault = type(commit.exception()).__name__ if commit.done() and not commit.cancelled() else "overdue"
            log.warning("usage.spooling", fault=fault)
        self._direct = False

    async def _last_resort(self, batch: list[Waiting], commit: Commit | None, error: AtpError) -> None:
        if commit:
            await asyncio.wait({commit})
            if committed(commit):
                self._commit_counts(batch, commit.result())
                return
        self._fail(batch, error)

    def _fail(self, batch: list[Waiting], error: AtpError) -> None:
        for row, durable, _ in batch:
            self._lost(row)
            if not durable.done():
                durable.set_exception(error)

    def _lost(self, row: UsageRow) -> None:
        self._failed.inc()
        log_lost(row)


def committed(commit: Commit) -> bool:
    return commit.done() and not commit.cancelled() and commit.exception() is None


def retrieve(durable: asyncio.Future[None]) -> None:
    """Its exception, so that nobody is told of one that nobody waits for."""
    if not durable.cancelled():
        durable.exception()


def acknowledge(batch: Iterable[Waiting]) -> None:
    for _, durable, _ in batch:
        if not durable.done():
            durable.set_result(None)


def log_lost(row: UsageRow) -> None:
    """What a lost row said, so that it may be entered by hand; no key, no text."""
    log.error("usage.row_lost", usage_id=str(row.id), user_id=row.user_id, agent=row.agent, model=row.model,
              tokens_in=row.tokens_in, tokens_out=row.tokens_out, status=row.status)  # fmt: skip
