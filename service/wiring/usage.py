"""Usage: the ledger with its spool, the replay, the months of the table, and the reports."""

from service.usage.ledger import Ledger
from service.usage.partitions import Partitions, Retention
from service.usage.replay import Replay
from service.usage.reports import Reports
from service.usage.spool import Spool
from service.usage.store import Store
from service.wiring.ground import Ground


async def open_ledger(ground: Ground) -> Ledger:
    """Opened on the stack; what runs in the background is registered."""
    settings, metrics = ground.settings, ground.metrics
    root = settings.usage_spool_dir or settings.state_dir / "spool"
    spool = Spool(root, settings.usage_spool_bytes, metrics)
    metrics.usage_spool_max.set(settings.usage_spool_bytes)
    ground.stack.push_async_callback(spool.close)
    await spool.open()
    store = Store(ground.db, ground.name)
    ledger = Ledger(store, spool, metrics)
    ground.stack.push_async_callback(ledger.close)
    retention = Retention(settings.usage_retention_months, settings.usage_rollup_retention_months)
    ground.work |= {
        "ledger": ledger.run,
        "usage-replay": Replay(spool, store, metrics, ledger.database_works, ground.watched("usage-replay")).run,
        "usage-partitions": Partitions(ground.db, retention, ran=ground.watched("usage-partitions")).run,
    }
    return ledger


def reports(ground: Ground) -> Reports:
    return Reports(ground.db)
