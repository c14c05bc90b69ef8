"""Background work with an owner: started together, restarted when it fails, cancelled and awaited at the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

RESTART_AFTER_S = 1.0


class Counter(Protocol):
    def inc(self) -> None: ...


class Background:
    """`async with Background(failures) as background: background.start("ledger", ledger.run)`."""

    def __init__(self, failures: Counter) -> None:
        self._failures = failures
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which loops for ever; a failure is logged, counted and followed by a new start."""
        self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except Exception as error:  # the loop that outlives every fault: logged and counted
                self._failures.inc()
                log.error("background.failed", task=name, exc_info=error)
                await asyncio.sleep(RESTART_AFTER_S)

    async def __aenter__(self) -> "Background":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
