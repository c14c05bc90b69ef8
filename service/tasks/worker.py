"""A worker: takes jobs from the engine (procrastinate on PostgreSQL) and runs their tasks, so many at a time.

Callbacks have an engine of their own beside that of the tasks: receivers that hang for as long as they may then hold up
callbacks only. They wait on sockets, so their number is ours; the settings bound what asks models.

The engine starts what has the smallest turn, hears of new jobs by LISTEN (and looks every second, for those that are
tried again). What a worker was running when it died is in nobody's hands until it is given back (`upkeep.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException, JobAborted
from procrastinate.job_context import AbortReason, JobContext
from procrastinate.jobs import DeleteJobCondition, Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from service.background import end
from service.db.pool import database_errors
from service.errors import DatabaseUnavailable
from service.tasks.callbacks import Callbacks
from service.tasks.engine import Jobs
from service.tasks.notices import Engine
from service.tasks.runs import ENDED, Again, Runs
from service.tasks.store import CALLBACK_JOB, CALLBACK_QUEUE, JOB, QUEUE

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
BEATS = 5  # signs of life within the time after which a worker counts as dead
AGAIN_S = 1.0
CONNECT_TIMEOUT_S = 3
# Two statements for each job, and the engine's own.
CONNECTIONS_LEAST, CONNECTIONS_MOST = 2, 10
DATABASE_AWAY_S = 2.0
CALLBACKS_AT_A_TIME = 8


@dataclass(frozen=True)
class Work:
    """How a worker works: `concurrency` tasks at a time, of these queues, of which "callbacks" is one (none: all); at
    its end it waits `drain_s` for what runs, then gives it back. Without a sign of life for `dead_after_s` it counts as
    dead."""

    name: str
    dsn: str
    concurrency: int
    queues: Sequence[str]
    drain_s: float
    dead_after_s: float

    @property
    def beat_s(self) -> float:
        return self.dead_after_s / BEATS

    def engines(self) -> list[tuple[list[str], int]]:
        """The queues of each engine, and how many of their jobs it runs at a time."""
        queues = self.queues or (QUEUE, CALLBACK_QUEUE)
        tasks, callbacks = [name for name in queues if name != CALLBACK_QUEUE], CALLBACK_QUEUE in queues
        of_tasks = [(tasks, self.concurrency)] if tasks else []
        return of_tasks + ([([CALLBACK_QUEUE], CALLBACKS_AT_A_TIME)] if callbacks else [])


class Retries(BaseRetryStrategy):
    """A run says itself whether it shall come back, and when; what the worker's end cut comes back at once."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, Again):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=exception.after_s))
        if isinstance(exception, DatabaseUnavailable):
            return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=DATABASE_AWAY_S))
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(UTC))
        return None


class Worker:
    """`serve()` is owned by whoever runs it; `stop()` begins its end."""

    def __init__(self, work: Work, runs: Runs, callbacks: Callbacks) -> None:
        self._work, self._runs, self._callbacks = work, runs, callbacks
        self._engines: list[Engine] = []
        self.running = 0
        self.stopping = False

    async def serve(self) -> None:
        """Take jobs until stopped, and return when those that run have ended or are given back. An engine stops when
        it has lost PostgreSQL: then all are begun anew."""
        while not self.stopping:
            with database_lost():
                await self._take()
            if not self.stopping:
                await asyncio.sleep(AGAIN_S)

    def stop(self) -> None:
        self.stopping = True
        self._stop_engines()

    def _stop_engines(self) -> None:
        for engine in self._engines:
            engine.stop()  # type: ignore[no-untyped-call]  # the library's gap

    async def _take(self) -> None:
        app = self._app()
        async with app.open_async():
            self._engines = [self._new_engine(app, *shape) for shape in self._work.engines()]
            beating = asyncio.create_task(self._beat(app), name="worker-heartbeat")
            try:
                # Not a TaskGroup: that passes on one cancellation, and an engine with a frozen database needs two.
                ended = await asyncio.gather(*map(self._engaged, self._engines), return_exceptions=True)
            finally:
                await end(beating)
        for error in filter(None, ended):
            raise error

    async def _engaged(self, engine: Engine) -> None:
        """Until it is stopped, or has lost PostgreSQL; the others then stop with it."""
        if self.stopping:  # its run would begin by forgetting that it was stopped
            return
        try:
            with database_lost():
                await engine.run()  # type: ignore[no-untyped-call]  # the library's gap
        finally:
            self._stop_engines()

    async def _beat(self, app: App) -> None:
        """The engine gives no sign of life while it waits for its last jobs, so others would take them for lost."""
        while True:
            await asyncio.sleep(self._work.beat_s)
            for engine in self._engines:
                if engine.worker_id is not None:
                    with suppress(ConnectorException):  # the engine finds out for itself
                        await app.job_manager.update_heartbeat(engine.worker_id)

    def _new_engine(self, app: App, queues: list[str], concurrency: int) -> Engine:
        return Engine(
            app,
            queues=queues,
            name=self._work.name,
            concurrency=concurrency,
            fetch_job_polling_interval=LOOK_EVERY_S,
            abort_job_polling_interval=LOOK_EVERY_S,
            shutdown_graceful_timeout=self._work.drain_s,
            delete_jobs=DeleteJobCondition.ALWAYS,
            install_signal_handlers=False,
            update_heartbeat_interval=self._work.beat_s,
            stalled_worker_timeout=self._work.dead_after_s,
        )

    def _app(self) -> App:
        settings: dict[str, Any] = {"prepare_threshold": None, "connect_timeout": CONNECT_TIMEOUT_S}
        connector = PsycopgConnector(
            conninfo=self._work.dsn,
            pool_factory=unasked,
            configure=autocommit,
            min_size=CONNECTIONS_LEAST,
            max_size=CONNECTIONS_MOST,
            timeout=CONNECT_TIMEOUT_S,
            kwargs={**settings, "application_name": "atp-worker"},
        )
        app = App(connector=connector)
        app.job_manager = Jobs(connector)
        app.task(name=JOB, pass_context=True, retry=Retries())(self._run)
        app.task(name=CALLBACK_JOB, pass_context=True, retry=Retries())(self._call_back)
        return app

    async def _run(self, context: JobContext, task_id: str) -> None:
        job_id = context.job.id
        assert job_id is not None  # noqa: S101 - it was fetched; mypy cannot know
        stopping = lambda: ended_by(context) is AbortReason.SHUTDOWN  # noqa: E731
        jobs = cast(Jobs, context.app.job_manager)
        task = jobs.begun(job_id)
        if await self._counted(context, lambda: self._runs.run(UUID(task_id), job_id, stopping, task)) in ENDED:
            jobs.ended(job_id)

    async def _call_back(self, context: JobContext, task_id: str) -> None:
        await self._counted(context, lambda: self._callbacks.run(UUID(task_id)))

    async def _counted(self, context: JobContext, work: Callable[[], Awaitable[str]]) -> str:
        """One job, and what became of it. That its user cancelled it is told apart from the worker's end: it shall not
        come back."""
        self.running += 1
        try:
            return await work()
        except asyncio.CancelledError:
            if ended_by(context) is AbortReason.USER_REQUEST:
                raise JobAborted from None
            raise
        finally:
            self.running -= 1


@contextmanager
def database_lost() -> Iterator[None]:
    """Log what an engine, or its connections, said of a database that is away; go on after it."""
    try:
        with database_errors():
            yield
    except (ConnectorException, DatabaseUnavailable) as error:
        log.warning("worker.database_lost", error=type(error.__cause__ or error).__name__)


def unasked(**given: Any) -> AsyncConnectionPool:
    """The engine's pool, which does not ask the server whether it is there each time that it lends a connection: an
    engine that finds one broken is begun anew. With `autocommit`, one round trip before each job and after it, not
    four."""
    return Unasked(**(given | {"check": None}))


class Unasked(AsyncConnectionPool):
    """Gives up opening soon: a worker that is told to stop while PostgreSQL is away would wait for 30 s."""

    async def open(self, wait: bool = False, timeout: float = CONNECT_TIMEOUT_S) -> None:
        await super().open(wait, timeout)


async def autocommit(connection: AsyncConnection[Any]) -> None:
    """All that the engine sends are single statements."""
    await connection.set_autocommit(True)


def ended_by(context: JobContext) -> AbortReason | None:
    return context.abort_reason()
