"""What becomes of tasks: counted, and told to whoever wants to hear it."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from service.tasks.records import Task
from service.tasks.store import JOB_LABEL, QUEUE
from service.telemetry.metrics import Metrics
from service.telemetry.operations import observe

Changed = Callable[[Task], Awaitable[None]]
Batched = Callable[[str, UUID, int], Awaitable[None]]  # a user's batch of so many tasks was taken


async def untold(user_id: str, batch_id: UUID, tasks: int) -> None:
    """Nobody wants to hear of batches."""


class News:
    """Times are PostgreSQL's. A change is counted where it is committed, so the sum over all processes is right."""

    def __init__(self, metrics: Metrics, tell: Changed, tell_batch: Batched = untold) -> None:
        self._metrics, self._tell, self.batched = metrics, tell, tell_batch

    async def changed(self, task: Task, *, ran: bool = True) -> None:
        """`ran`: what has ended it, if it has, is a run."""
        if task.status == "running":
            self._started(task)
        elif task.status != "queued":
            self._ended(task, ran)
        await self._tell(task)

    def retried(self) -> None:
        self._metrics.tasks.labels(JOB_LABEL, "retried").inc()

    def recovered(self, tasks: int, label: str = JOB_LABEL) -> None:
        self._metrics.tasks.labels(label, "recovered").inc(tasks)

    def _started(self, task: Task) -> None:
        if task.attempt == 1 and task.started_at:  # a later run has waited for other reasons
            ready_at = max(task.created_at, task.not_before or task.created_at)
            observe(self._metrics.task_queue_wait.labels(QUEUE), (task.started_at - ready_at).total_seconds())

    def _ended(self, task: Task, ran: bool) -> None:
        self._metrics.tasks.labels(JOB_LABEL, task.status).inc()
        if ran and task.status != "cancelled" and task.started_at and task.finished_at:
            taken_s = (task.finished_at - task.started_at).total_seconds()
            observe(self._metrics.task_duration.labels(JOB_LABEL), taken_s)
