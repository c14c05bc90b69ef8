"""SQL of the engine's jobs where a task is taken with its job; the engine sends it, so it has its parameters."""

from dataclasses import fields
from typing import Any

from service.tasks.records import Task
from service.tasks.store import BEGIN, JOB, MAY_BEGIN

TASK = [field.name for field in fields(Task)]
# The engine's own `fetch_job`, and the task that the job is for, now running. A row that somebody holds is left alone:
# who cancels a task holds it and then waits for its job, which is held here.
FETCH = f"""
WITH job AS MATERIALIZED (
    SELECT * FROM procrastinate_fetch_job_v2(%(queues)s::varchar[], %(worker_id)s)
), free AS (
    SELECT tasks.id FROM tasks JOIN job ON tasks.id = (job.args ->> 'task_id')::uuid
    WHERE job.task_name = '{JOB}' FOR UPDATE OF tasks SKIP LOCKED
), begun AS (
    {BEGIN} attempt = attempt + 1, job_id = (SELECT id FROM job)
    WHERE id = (SELECT id FROM free) AND {MAY_BEGIN}
    RETURNING {", ".join(f"tasks.{name} AS task_{name}" for name in TASK)}
)
SELECT job.id, job.status, job.task_name, job.priority, job.lock, job.queueing_lock, job.args, job.scheduled_at,
       job.queue_name, job.attempts, job.worker_id, begun.*
FROM job LEFT JOIN begun ON true"""  # noqa: S608 - our own parts

# Of this worker's own: the library's act on whoever has the job now.
OWN = "id = %(job_id)s AND status = 'doing' AND worker_id = %(worker_id)s"
DELETE_OWN = f"DELETE FROM procrastinate_jobs WHERE {OWN}"  # noqa: S608 - our own condition
RETRY_OWN = f"""
SELECT procrastinate_retry_job_v2(id, %(retry_at)s, NULL::integer, NULL::varchar, NULL::varchar)
FROM procrastinate_jobs WHERE {OWN}"""  # noqa: S608 - our own condition


def begun_task(row: dict[str, Any]) -> Task | None:
    """Of a row of FETCH."""
    return None if row["task_id"] is None else Task(**{name: row[f"task_{name}"] for name in TASK})
