"""One run of a task by a worker: begin, ask, end; whatever happens, the row says what became of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opentelemetry.trace import Tracer
from pydantic_core import to_json

from service.db.pool import Database
from service.errors import (
    AtpError,
    DatabaseRejected,
    DeadlinePassed,
    GivenUp,
    ResultTooLarge,
    RunTooLong,
    Unavailable,
    UpstreamError,
)
from service.tasks import store, traces
from service.tasks.failures import Failures, refused
from service.tasks.news import News
from service.tasks.records import Task
from service.tasks.store import QUEUE
from service.telemetry.operations import tell_failure

LONGEST_BACKOFF_S = 300.0
ENDED = frozenset(("done", "failed"))  # what a run says that ended its task, and its job


class Again(Exception):
    """The task is in the queue again; the engine shall bring it back in so many seconds."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"again in {after_s:.1f} s")
        self.after_s = after_s


@dataclass(frozen=True)
class Bounds:
    """`tries` of one task; `run_s`: the longest that one may take; `backoff_s`: how long it waits after its first
    failure, then twice as long each time; `result_bytes`: the largest result that is kept, as JSON."""

    tries: int
    run_s: float
    backoff_s: float
    result_bytes: int


Ask = Callable[[Task], Awaitable[dict[str, Any]]]
Problem = Callable[[AtpError, str], dict[str, Any]]


class Runs:
    """`ask` answers a task's request, as a chat would, and raises AtpError; `problem` puts an error into words.

    Which runs end a task is decided by its row: a run that was taken for dead and replaced changes nothing any more.
    """

    def __init__(
        self,
        db: Database,
        ask: Ask,
        problem: Problem,
        news: News,
        failures: Failures,
        bounds: Bounds,
        tracer: Tracer,
    ) -> None:
        self._db, self._ask, self._problem, self._news = db, ask, problem, news
        self._failures, self._bounds, self._tracer = failures, bounds, tracer

    async def run(self, task_id: UUID, job_id: int, stopping: Callable[[], bool], begun: Task | None = None) -> str:
        """What became of it: done or failed, its job with it; late, where its deadline had passed; or gone, where there
        was nothing to do. `begun`: the task, where it began when the job was taken. `stopping`: whether a cancellation
        is the worker's own end, so that another worker shall take the task.

        Raises:
            Again: it shall be tried again.
            CancelledError: it was cancelled, or the worker stops.
        """
        task = begun or await self._start(task_id, job_id)
        if task is None:
            return await self._too_late(task_id, job_id)
        with traces.processing(self._tracer, task, QUEUE):
            await self._news.changed(task)
            try:
                return await self._tried(task)
            except asyncio.CancelledError:
                if stopping():
                    await asyncio.shield(self._put_back(task, counted=False))
                raise

    async def _start(self, task_id: UUID, job_id: int) -> Task | None:
        async with self._db.statement("start_task") as connection:
            return await store.start(connection, task_id, job_id)

    async def _tried(self, task: Task) -> str:
        if task.attempt > self._bounds.tries:  # each time its worker died with it
            return await self._ended(task, "failed", None, GivenUp())
        try:
            async with asyncio.timeout(self._bounds.run_s):
                result = await self._ask(task)
        except TimeoutError:
            return await self._ended(task, "failed", None, RunTooLong())
        except (UpstreamError, Unavailable) as error:
            if task.attempt < self._bounds.tries and not refused(error):
                tell_failure(error.code)
                await self._put_back(task, counted=True)
                self._news.retried()
                raise Again(backoff_s(self._bounds.backoff_s, task.attempt)) from error
            return await self._ended(task, "failed", None, error)
        except AtpError as error:  # bad input stays bad
            return await self._ended(task, "failed", None, error)
        except Exception as error:  # noqa: BLE001 - the worker's loop: logged, counted, reported
            self._failures.unforeseen(error, task)
            return await self._ended(task, "failed", None, AtpError())
        return await self._done(task, result)

    async def _done(self, task: Task, result: dict[str, Any]) -> str:
        if (size := len(to_json(result))) > self._bounds.result_bytes:
            return await self._ended(task, "failed", None, ResultTooLarge(size, self._bounds.result_bytes))
        try:
            return await self._ended(task, "done", result, None)
        except DatabaseRejected as error:  # the model said a NUL, for one
            return await self._ended(task, "failed", None, error)

    async def _ended(self, task: Task, status: Any, result: dict[str, Any] | None, error: AtpError | None) -> str:
        if error:
            tell_failure(error.code)
        told = self._problem(error, task.request_id) if error else None
        # A callback is a second row, of the same transaction.
        lent = self._db.connection if task.callback_url else self._db.statement
        async with lent("finish_task") as connection:
            ended = await store.finish(connection, task, status, result, told)
        if ended is None:
            return "gone"
        await self._news.changed(ended)
        if error:
            self._failures.failed(error, ended)
        return str(status)

    async def _put_back(self, task: Task, *, counted: bool) -> None:
        async with self._db.statement("put_back_task") as connection:
            waiting = await store.put_back(connection, task, counted=counted)
        if waiting is not None:
            await self._news.changed(waiting)

    async def _too_late(self, task_id: UUID, job_id: int) -> str:
        error = DeadlinePassed()
        async with self._db.connection("fail_late_task") as connection:
            late = await store.fail_late(connection, task_id, job_id, self._problem(error, ""))
        if late is None:
            return "gone"
        await self._news.changed(late, ran=False)
        self._failures.failed(error, late)
        return "late"


def backoff_s(first_s: float, failures: int, longest_s: float = LONGEST_BACKOFF_S) -> float:
    """Jittered by half, so that what failed together comes back apart."""
    jitter: float = random.uniform(0.5, 1.5)  # noqa: S311
    return min(longest_s, first_s * 2.0 ** (failures - 1)) * jitter
