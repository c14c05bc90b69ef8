"""Telling a receiver that a task is over: one try, and what becomes of the callback.

The job was made in the transaction that ended the task, so no crash loses it. It is delivered at least once: a worker
may die between the receiver's answer and its own note of it. `webhook-id` is the same each time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from opentelemetry.trace import Tracer

from service.db.pool import Database
from service.tasks import callback_store, traces, webhooks
from service.tasks.allow_list import AllowList
from service.tasks.failures import Unforeseen
from service.tasks.receivers import Message, Receivers, Undelivered
from service.tasks.records import CallbackStatus, Task
from service.tasks.runs import Again, backoff_s
from service.tasks.store import CALLBACK_LABEL, CALLBACK_QUEUE
from service.telemetry.metrics import Metrics
from service.telemetry.operations import observe, tell_failure

log = structlog.get_logger()

LONGEST_BACKOFF_S = 3600.0
# From 5 s on the waits double up to an hour: 85 minutes for the first ten, then 23 hours.
TRIES = 34

Body = Callable[[Task], bytes]  # what is told of a task that is over


@dataclass(frozen=True)
class Terms:
    """To whom callbacks may go, `keys` that sign them (none: unsigned), and the wait after the first failure."""

    allowed: AllowList
    keys: list[bytes]
    backoff_s: float


@dataclass(frozen=True)
class Watch:
    """What hears of callbacks: each try is timed and a span, a bug is reported."""

    metrics: Metrics
    tracer: Tracer
    unforeseen: Unforeseen


class Callbacks:
    def __init__(self, db: Database, receivers: Receivers, body: Body, terms: Terms, watch: Watch) -> None:
        self._db, self._receivers, self._body, self._terms = db, receivers, body, terms
        self._metrics, self._tracer, self._unforeseen = watch.metrics, watch.tracer, watch.unforeseen

    async def run(self, task_id: UUID) -> str:
        """What became of it: delivered, failed, or gone where there was nothing to do.

        Raises:
            Again: it shall be tried again.
            DatabaseUnavailable: what became of it could not be noted.
        """
        async with self._db.connection("begin_callback") as connection:
            task = await callback_store.begin(connection, task_id)
        if task is None:  # deleted, say
            return "gone"
        with traces.processing(self._tracer, task, CALLBACK_QUEUE):
            return await self._tried(task)

    async def _tried(self, task: Task) -> str:
        """Raises as `run`."""
        beginning = self._terms.allowed.beginning(task.callback_url or "")
        started = time.perf_counter()
        try:
            await self._tell(task, beginning)
        except Undelivered as error:
            tell_failure(error.reason)
            return await self._undelivered(task, beginning, error)
        finally:
            observe(self._metrics.task_duration.labels(CALLBACK_LABEL), time.perf_counter() - started)
        return await self._ended(task, "delivered")

    async def _tell(self, task: Task, beginning: str | None) -> None:
        """Raises Undelivered, also where the settings no longer allow what they did."""
        if beginning is None:
            raise Undelivered("not_allowed", for_good=True)
        try:
            body = self._body(task)
            headers = webhooks.headers(self._terms.keys, message_id(task), int(time.time()), body)
            await self._post(task, Message(task.callback_url or "", headers, body))
        except Undelivered:
            raise
        except Exception as error:  # noqa: BLE001 - the worker's loop: logged, counted, reported
            self._unforeseen(error, task)
            raise Undelivered("unforeseen") from None

    async def _post(self, task: Task, message: Message) -> None:
        with traces.delivery(self._tracer, task) as span:
            message = replace(message, headers={**message.headers, **traces.carried(span)})
            try:
                span.set_attribute("http.response.status_code", await self._receivers.post(message))
            except Undelivered as error:
                traces.failed(span, error.reason)
                raise

    async def _undelivered(self, task: Task, beginning: str | None, error: Undelivered) -> str:
        """The log has the allowed beginning: what follows it may hold the receiver's secrets."""
        if not error.for_good and task.callback_attempts < TRIES:
            self._metrics.tasks.labels(CALLBACK_LABEL, "retried").inc()
            wait_s = backoff_s(self._terms.backoff_s, task.callback_attempts, LONGEST_BACKOFF_S)
            raise Again(max(wait_s, min(error.after_s, LONGEST_BACKOFF_S))) from None
        became = await self._ended(task, "failed")
        told = {"receiver": beginning, "reason": error.reason, "attempts": task.callback_attempts}
        log.warning("task.callback_failed", task_id=str(task.id), **told)
        return became

    async def _ended(self, task: Task, status: CallbackStatus) -> str:
        async with self._db.connection("end_callback") as connection:
            ours = await callback_store.end(connection, task, status)
        if not ours:
            return "gone"
        self._metrics.tasks.labels(CALLBACK_LABEL, "done" if status == "delivered" else "failed").inc()
        return status


def message_id(task: Task) -> str:
    """Of this end: a task that is begun again ends anew."""
    assert task.finished_at is not None  # noqa: S101 - it is over; mypy cannot know
    return f"{task.id}_{int(task.finished_at.timestamp() * 1000)}"
