"""From the spool back to PostgreSQL, in order, as soon as it commits again."""

import asyncio
import time
from collections.abc import Callable

import structlog

from service.background import Ran, unwatched
from service.errors import DatabaseUnavailable
from service.telemetry.metrics import Metrics
from service.usage.ledger import log_lost
from service.usage.spool import Spool, Waiting
from service.usage.store import Store

log = structlog.get_logger()

LOOK_EVERY_S = 0.25
# A process that was killed and not started again leaves its rows to those that live.
ORPHANS_EVERY_S = 30.0
# A commit of this many takes some tens of milliseconds: live commits wait for it behind the locks of shared sums.
BATCH_ROWS = 1000


class Replay:
    """`run()` is owned by the composition root."""

    def __init__(
        self, spool: Spool, store: Store, metrics: Metrics, committed: Callable[[], None], ran: Ran = unwatched
    ) -> None:
        """`committed` hears of every batch that PostgreSQL took, `ran` of every look after which nothing waited."""
        self._spool, self._store, self._committed, self._ran = spool, store, committed, ran
        self._replayed = metrics.usage_rows.labels("replayed")
        self._failed = metrics.usage_rows.labels("failed")

    async def run(self) -> None:
        """Look for ever: for a disk that works again, for orphans, for rows that PostgreSQL would take."""
        adopt_at = 0.0
        while True:
            await self._spool.mend()
            if time.monotonic() >= adopt_at:
                await self._adopt()
                adopt_at = time.monotonic() + ORPHANS_EVERY_S
            await self.drain()
            if not self._spool.rows:
                self._ran()
            await asyncio.sleep(LOOK_EVERY_S)

    async def drain(self) -> None:
        """Replay until nothing waits or PostgreSQL does not take it."""
        started, rows = time.monotonic(), 0
        try:
            while self._spool.rows and self._store.up and (waiting := await self._spool.oldest()):
                await self._replay(waiting)
                rows += len(waiting.rows)
        except DatabaseUnavailable:
            return  # not yet; what was stored of this segment is stored again then, which changes nothing
        if rows:
            log.info("usage.replayed", rows=rows, took_s=round(time.monotonic() - started, 3))

    async def _adopt(self) -> None:
        if rows := await self._spool.adopt():
            log.warning("usage.adopted", rows=rows)

    async def _replay(self, waiting: Waiting) -> None:
        """Store a segment's rows, then remove it; raises DatabaseUnavailable."""
        for start in range(0, len(waiting.rows), BATCH_ROWS):
            batch = waiting.rows[start : start + BATCH_ROWS]
            refused = await self._store.insert(batch)
            self._committed()
            self._replayed.inc(len(batch) - len(refused))
            self._failed.inc(len(refused))
            for row in refused:
                log_lost(row)
        if waiting.unreadable:
            self._failed.inc(waiting.unreadable)
            log.error("usage.rows_unreadable", rows=waiting.unreadable, segment=waiting.path.name)
        await self._spool.drop(waiting)
