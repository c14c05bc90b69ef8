"""The engine's jobs, taken together with their tasks and deleted together with their ends.

The engine alone would take a job, and we would then begin its task; we would end it, and the engine then delete the
job: twice the transactions, and between them moments in which a worker could die.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from procrastinate.connector import BaseConnector
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.types import JSONDict

from service.tasks.job_store import DELETE_OWN, FETCH, RETRY_OWN, begun_task
from service.tasks.records import Task

FRESH_S = 1.0


class QuietJob(Job):
    """The engine describes a job at length for each of four lines of its log, which nobody keeps."""

    def log_context(self) -> JSONDict:
        return {"id": self.id}


class Jobs(JobManager):
    """For one connector; what it remembers are jobs that this process runs."""

    def __init__(self, connector: BaseConnector) -> None:
        super().__init__(connector)
        self._begun = dict[int, tuple[float, Task]]()
        self._ended = set[int]()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        asked_at = time.monotonic()
        row = await self.connector.execute_query_one_async(query=FETCH, queues=queues, worker_id=worker_id)
        if row["id"] is None:
            return None
        if (task := begun_task(row)) is not None:
            self._begun[row["id"]] = asked_at, task
        return QuietJob.from_row(row)

    def begun(self, job_id: int) -> Task | None:
        """The task that began with this job, once. None also where that was not just now: this process may have been
        frozen, and the task be another's."""
        asked_at, task = self._begun.pop(job_id, (0.0, None))
        return task if time.monotonic() - asked_at < FRESH_S else None

    def ended(self, job_id: int) -> None:
        """It was deleted when its task ended."""
        self._ended.add(job_id)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Delete it, if it is still this worker's: whoever took this worker for dead may have given it to another."""
        if job.id in self._ended:
            self._ended.discard(job.id)
            return
        await self.connector.execute_query_async(query=DELETE_OWN, job_id=job.id, worker_id=job.worker_id)

    async def retry_job(self, job: Job, retry_at: datetime | None = None, *_: object, **__: object) -> None:
        """Put it back, if it is still this worker's. Neither priority nor queue nor lock changes here."""
        self._ended.discard(job.id or 0)
        given = {"job_id": job.id, "worker_id": job.worker_id, "retry_at": retry_at or datetime.now(UTC)}
        await self.connector.execute_query_async(query=RETRY_OWN, **given)
