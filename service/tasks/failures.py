"""Tasks that failed, as on-call hears of them: one group for each problem and agent, never a prompt or a key."""

from collections.abc import Callable

import structlog

from service.errors import AtpError
from service.tasks.records import Task
from service.tasks.store import JOB_LABEL
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter

log = structlog.get_logger()

# What a model server says of a request that it will not understand the next time either: too long, say.
REFUSALS = (400, 404, 413, 415, 422)


Unforeseen = Callable[[Exception, Task], None]  # logs, counts and reports a bug


class Failures:
    def __init__(self, metrics: Metrics, reporter: ErrorReporter) -> None:
        self._metrics, self._reporter = metrics, reporter

    def unforeseen(self, error: Exception, task: Task) -> None:
        """A bug: logged, counted, and reported with its stack."""
        self._metrics.unhandled.labels("task").inc()
        log.error("task.unhandled", task_id=str(task.id), exc_info=error)
        self._reporter.capture(error, request_id=task.request_id, route="task", task_id=str(task.id))

    def failed(self, error: AtpError, task: Task) -> None:
        """A task that failed for good. Told of are faults of ATP and of what it stands on: not bad input, and not a bug
        again. The error itself is not sent: what caused it may quote what was asked."""
        log.warning("task.failed", task_id=str(task.id), problem=error.code, attempts=task.attempt)
        if error.status < 500 or refused(error) or type(error) is AtpError:
            return
        agent = str(task.request.get("agent") or "several")
        self._reporter.tell(
            f"Task failed: {error.title}",
            fingerprint=("task", JOB_LABEL, error.code, agent),
            request_id=task.request_id,
            task_id=str(task.id),
            problem=error.code,
            agent=agent,
        )


def refused(error: AtpError) -> bool:
    """Whether the model server found fault with what it was asked."""
    return error.extra.get("upstream_status") in REFUSALS
