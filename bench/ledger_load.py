"""The ledger without HTTP: rows made durable a second, and how long each caller waits. A process of its own (uvloop).

Run: python -m bench.ledger_load '{"dsn": "postgresql://…", "seconds": 4, "sums": true}'
`sums` false stores the bare rows, without the hourly and daily sums. It prints one JSON document: figures by callers.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop

from bench.load import summary
from service.background import Background
from service.db.pool import Database
from service.settings import load
from service.telemetry.metrics import Metrics
from service.usage import ledger as ledger_module
from service.usage import store as usage_store
from service.usage.ledger import Ledger
from service.usage.meter import Meter
from service.usage.row import UsageRow
from service.usage.spool import Spool
from service.usage.store import Store

CALLERS = (1, 16, 256)
KEYS = 50
SPOOL_BYTES = 10_000_000
PATIENCE_S = 30.0
BARE = """
INSERT INTO api_usage (id, request_id, "timestamp", key_hash, user_id, agent, model, tokens_in, tokens_out, cached,
                       status, duration_s, cost_usd)
SELECT id, request_id, "timestamp", decode(key_hash, 'hex'), user_id, agent, model, tokens_in, tokens_out, cached,
       status, duration_s, cost_usd
FROM json_to_recordset(%s::json) AS new (
    id uuid, request_id text, "timestamp" timestamptz, key_hash text, user_id text, agent text, model text,
    tokens_in integer, tokens_out integer, cached boolean, status smallint, duration_s double precision,
    cost_usd numeric)
WHERE %s::smallint IS NOT NULL
ON CONFLICT (id, "timestamp") DO NOTHING"""


async def measure(dsn: str, seconds: float, sums: bool) -> dict[str, dict[str, float]]:
    ledger_module.OVERDUE_S = PATIENCE_S  # a disk that stalls for half a second is measured too, not gone round
    if not sums:
        usage_store.STORE_USAGE = BARE
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(Database(load(database_url=dsn, db_pool_size=4), metrics))
        spool = Spool(Path(stack.enter_context(tempfile.TemporaryDirectory())), SPOOL_BYTES, metrics)
        stack.push_async_callback(spool.close)
        await spool.open()
        ledger = Ledger(Store(db, "bench"), spool, metrics)
        background = await stack.enter_async_context(Background(metrics.unhandled.labels("background")))
        background.start("ledger", ledger.run)
        await load_with(ledger, 16, 0.5)
        figures = {str(callers): await load_with(ledger, callers, seconds) for callers in CALLERS}
        spooled = metrics.registry.get_sample_value("atp_usage_rows_total", {"outcome": "spooled"})
    if spooled:
        raise RuntimeError(f"{spooled:.0f} rows went to the spool: PostgreSQL was not measured")
    return figures


async def load_with(ledger: Ledger, callers: int, seconds: float) -> dict[str, float]:
    """A closed loop; `loop_cpu_us` is this process's own time for a row."""
    until, took_us = time.monotonic() + seconds, list[int]()

    async def caller() -> None:
        while time.monotonic() < until:
            row, began = new_row(), time.perf_counter()
            await ledger.record(row)
            took_us.append(round(1e6 * (time.perf_counter() - began)))

    began, cpu_began = time.monotonic(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    cpu_s, took_s = time.process_time() - cpu_began, time.monotonic() - began
    each = {"rows_per_s": len(took_us) / took_s, "cpu_us": 1e6 * cpu_s / len(took_us)}
    return each | summary(sorted(took_us))


def new_row() -> UsageRow:
    key = random.randrange(KEYS)
    meter = Meter(uuid.uuid4().hex, key.to_bytes(32), f"usr_{key}", "reasoning", "scripted")
    meter.timestamp = datetime.now(UTC)
    meter.add(20, 16, 0.00012)
    return meter.row(200)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    print(json.dumps(uvloop.run(measure(**json.loads(sys.argv[1])))))
