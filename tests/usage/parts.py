"""The ledger with everything it stands on, without a node around it."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from service.background import Background
from service.db.pool import Database
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage.ledger import Ledger
from service.usage.replay import Replay
from service.usage.row import UsageRow
from service.usage.spool import Spool
from service.usage.store import Store

ROW = UsageRow(
    id=uuid.UUID(int=1),
    request_id="request-1",
    timestamp=datetime(2026, 11, 23, 10, 30, tzinfo=UTC),
    key_hash="ab" * 32,
    user_id="ana",
    agent="reasoning",
    model="good",
    tokens_in=7,
    tokens_out=4,
    cached=False,
    status=200,
    duration_s=0.25,
    cost_usd=0.0001,
)
MEGABYTE = 1_000_000


def rows(count: int, first: int = 0) -> list[UsageRow]:
    return [replace(ROW, id=uuid.UUID(int=number)) for number in range(first, first + count)]


@dataclass(frozen=True)
class Parts:
    ledger: Ledger
    spool: Spool
    store: Store
    replay: Replay
    metrics: Metrics

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("atp_usage_rows_total", {"outcome": outcome}) or 0.0

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@asynccontextmanager
async def open_parts(
    dsn: str, spool_dir: Path, *, limit_bytes: int = MEGABYTE, replaying: bool = True, node: str = "node-1"
) -> AsyncIterator[Parts]:
    """As `service/wiring/usage.py` opens and closes them."""
    metrics = Metrics()
    settings = load(database_url=dsn, db_pool_size=2, db_max_overflow=1, db_timeout=2)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database(settings, metrics))
        spool = Spool(spool_dir, limit_bytes, metrics)
        stack.push_async_callback(spool.close)
        await spool.open()
        store = Store(db, node)
        ledger = Ledger(store, spool, metrics)
        stack.push_async_callback(ledger.close)
        replay = Replay(spool, store, metrics, ledger.database_works)
        background = await stack.enter_async_context(Background(metrics.unhandled.labels("background")))
        background.start("ledger", ledger.run)
        if replaying:
            background.start("usage-replay", replay.run)
        yield Parts(ledger, spool, store, replay, metrics)


def stored(dsn: str, sql: str = "SELECT count(*) FROM api_usage") -> Any:
    """The first row."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(sql.encode()).fetchone()


def counted(dsn: str) -> tuple[int, int, int]:
    """Rows, and requests as the hourly and as the daily sums have them."""
    found: tuple[int, int, int] = stored(
        dsn,
        "SELECT (SELECT count(*) FROM api_usage), (SELECT coalesce(sum(requests), 0)::int FROM usage_hourly),"
        " (SELECT coalesce(sum(requests), 0)::int FROM usage_daily)",
    )
    return found


def files_in(folder: Path) -> list[Path]:
    """Of all folders in it."""
    return [path for path in sorted(folder.rglob("*"), key=lambda path: path.suffix) if path.is_file()]
