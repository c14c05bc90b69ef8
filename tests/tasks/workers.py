"""Workers for tests: in this process, or as `atp worker` runs them, to be killed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from service.db.pool import Database
from service.http.problems import problem
from service.settings import Settings
from service.tasks.failures import Failures
from service.tasks.lateness import Lateness
from service.tasks.news import News
from service.tasks.records import Task
from service.tasks.upkeep import Upkeep
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
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
async def upkeep(settings: Settings, kept_s: float, told: Counter[UUID] | None = None) -> AsyncIterator[Upkeep]:
    """To be called by a test; nothing runs by itself. `told` counts the changes that were told, by their task."""
    metrics, changes = Metrics(), Counter[UUID]() if told is None else told

    async def tell(task: Task) -> None:
        changes[task.id] += 1

    async with Database(settings, metrics) as db:
        news, failures = News(metrics, tell), Failures(metrics, ErrorReporter(settings, "atp@test", lambda: None))
        yield Upkeep(db, news, Lateness(db, problem, news, failures), dead_after_s=15.0, kept_s=kept_s)


class WorkerProcess(ServiceProcess):
    """`atp worker` as a process of its own."""

    command = "worker"
