"""Workers for tests: in this process, or as `atp worker` runs them, to be killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.db.pool import Database
from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers
from service.embedded.processes import Child, Command
from service.settings import Settings
from service.tasks.news import News
from service.tasks.records import Task
from service.tasks.upkeep import Upkeep
from service.telemetry.metrics import Metrics
from service.wiring.worker import WorkerParts, open_worker
from tests.nodes import spooling
from tests.processes import EXIT_S, READY, READY_S, ROOT, SETTINGS


@asynccontextmanager
async def working(settings: Settings, concurrency: int = 4) -> AsyncIterator[WorkerParts]:
    """A worker in this process; drained at the end."""
    async with spooling(settings) as settings, open_worker(settings, concurrency, []) as parts:
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


class WorkerProcess:
    """`atp worker` as a process of its own."""

    def __init__(self, folder: StateFolder, name: str, private_port: int, **settings: Any) -> None:
        self.name, self.private_port = name, private_port
        self._folder = folder
        self._settings = {**SETTINGS, "node_name": name, "usage_spool_dir": folder.path / "spool", **settings}
        self._child: Child

    async def start(self) -> None:
        """Return once it answers."""
        values = {**self._settings, "private_port": self.private_port}
        environment = [f"{name.upper()}={value}" for name, value in values.items()]
        argv = ["/usr/bin/env", *environment, sys.executable, "-m", "service", "worker"]
        self._child = Child(self._folder, self.name, Command(argv, cwd=ROOT))
        try:
            await self._child.ready(lambda: answers(self.private_port, READY, b" 200 "), READY_S)
        except BaseException:
            await self._child.kill()
            raise

    async def kill(self) -> None:
        """As `kill -9`; harmless on one that has ended."""
        await self._child.kill()

    def freeze(self) -> None:
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.signal(signal.SIGCONT)

    async def terminate(self) -> int:
        self._child.signal(signal.SIGTERM)
        async with asyncio.timeout(EXIT_S):
            return await self._child.ended()

    def log(self) -> str:
        return self._child.log.read_text()


__all__ = ["HOST", "WorkerProcess", "working"]
