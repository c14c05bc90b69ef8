"""Background work with an owner: started together, restarted when it fails, cancelled and awaited at the end."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog

log = structlog.get_logger()

RESTART_AFTER_S = 1.0
ASK_AGAIN_S = 0.2

Result = TypeVar("Result")
Ran = Callable[[], None]


def unwatched() -> None:
    """Nobody asks when a periodic work last came to its end."""


def unreported(error: Exception, work: str) -> None:
    """Nobody is told, beside the log."""


def shared_task(work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """A task for many requests: in the context of none, so that what it does and logs is not put down to the one that
    happened to begin it."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())


class Counter(Protocol):
    def inc(self) -> None: ...


class Background:
    """`async with Background(failures) as background: background.start("ledger", ledger.run)`."""

    def __init__(self, failures: Counter, report: Callable[[Exception, str], None] = unreported) -> None:
        self._failures, self._report = failures, report
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which loops for ever; a failure is logged, counted and followed by a new start."""
        self._tasks.append(asyncio.create_task(self.keep(name, work), name=name))

    async def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Until `work` returns, for whoever wants to own its task; a failure as in `start`."""
        while True:
            try:
                await work()
                return
            except Exception as error:  # the loop that outlives every fault: logged and counted
                self._failures.inc()
                log.error("background.failed", task=name, exc_info=error)
                self._report(error, name)
                await asyncio.sleep(RESTART_AFTER_S)

    async def __aenter__(self) -> "Background":
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(*self._tasks)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait for their end, asking again until they listen.

    Python 3.11's `asyncio.wait_for`, which redis-py uses, swallows a cancellation that arrives together with the result
    (python/cpython#86296, mended in 3.12): asked once, a loop around it goes on for ever.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=ASK_AGAIN_S)
