"""Workers for tests: in this process, or as `atp worker` runs them, to be killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.db.pool import Database
from service.settings import Settings
from service.tasks.news import News
from service.tasks.records import Task
from service.tasks.upkeep import Upkeep
from service.telemetry.metrics import Metrics
from service.wiring.worker import WorkerParts, open_worker
from tests.nodes import spooling
from tests.processes import ServiceProcess


@asynccontextmanager
async def working(settings: Settings, concurrency: int = 4, *queues: str) -> AsyncIterator[WorkerParts]:
    """A worker in this process, of these queues (none: all); drained at the end."""
    async with spooling(settings) as settings, open_worker(settings, concurrency, queues) as parts:
        serving = asyncio.create_task(parts.worker.serve())
        try:
            yield parts
        finally:
            parts.worker.stop()
            await serving


@asynccontextmanager
async def upkeep(settings: Settings, kept_s: float) -> AsyncIterator[Upkeep]:
    """To be called by a test; nothing runs by itself, and nobody is told."""
    metrics = Metrics()

    async def tell(task: Task) -> None: ...

    async with Database(settings, metrics) as db:
        yield Upkeep(db, News(metrics, tell), dead_after_s=15.0, kept_s=kept_s)


class WorkerProcess(ServiceProcess):
    """`atp worker` as a process of its own."""

    command = "worker"
