"""SQL of what administrators see of everybody's tasks, and may try again; never a prompt, nor an answer.

Every function takes the connection first; parameters are bound.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from service.pages import Place
from service.tasks.records import Status, Task
from service.tasks.store import COLUMNS, Connection
from service.tasks.upkeep_store import insert_jobs


@dataclass(frozen=True)
class FailedTask:
    """A failed task without what it is about; `problem`: the type of what it failed with, a URN."""

    id: UUID
    batch_id: UUID | None
    user_id: str
    request_id: str
    priority: int
    not_before: datetime | None
    deadline: datetime | None
    status: Status
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    problem: str | None


@dataclass(frozen=True)
class Depth:
    """Tasks that could start now, that shall start later (`not_before`), that run; how long the oldest of the first
    could have, in seconds, 0 where there is none; and tasks that are over whose receiver is still to be told."""

    ready: int
    scheduled: int
    running: int
    oldest_age_s: float
    callbacks: int


SELECT_PAGE = f"""
SELECT {", ".join(field.name for field in fields(FailedTask) if field.name != "problem")}, error ->> 'type' AS problem
FROM tasks
WHERE status = 'failed' AND (%(problem)s::text IS NULL OR error ->> 'type' = %(problem)s)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s::uuid))
ORDER BY created_at DESC, id DESC LIMIT %(rows)s"""  # noqa: S608 - our own columns
SELECT_DEPTH = """
SELECT count(*) FILTER (WHERE status = 'queued' AND ready_at <= now()),
       count(*) FILTER (WHERE status = 'queued' AND ready_at > now()),
       count(*) FILTER (WHERE status = 'running'),
       coalesce(extract(epoch FROM now() - min(ready_at) FILTER (WHERE status = 'queued' AND ready_at <= now())), 0),
       (SELECT count(*) FROM tasks WHERE callback_status = 'pending' AND status NOT IN ('queued', 'running'))
FROM (SELECT status, greatest(created_at, not_before) AS ready_at
      FROM tasks WHERE status IN ('queued', 'running')) AS open"""
SELECT_STATUS = "SELECT status FROM tasks WHERE id = %s"
# With its old turn, so that it is next; all its tries are before it again. It waits from now on: not since it was made.
RETRY = f"""
UPDATE tasks SET status = 'queued', attempt = 0, not_before = now(), started_at = NULL, finished_at = NULL,
                 error = NULL, job_id = NULL
WHERE id = %s AND status = 'failed' AND (deadline IS NULL OR deadline > now()) RETURNING {COLUMNS}"""  # noqa: S608


async def select_page(
    connection: Connection, problem: str | None, user_id: str | None, after: Place | None, rows: int
) -> list[FailedTask]:
    """The newest first."""
    place = {"at": after and after.at, "id": after and after.name}
    asked = {"problem": problem, "user_id": user_id, "rows": rows, **place}
    async with connection.cursor(row_factory=class_row(FailedTask)) as cursor:
        return await (await cursor.execute(SELECT_PAGE.encode(), asked)).fetchall()


async def select_depth(connection: Connection) -> Depth:
    row = await (await connection.execute(SELECT_DEPTH)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row; mypy cannot know
    ready, scheduled, running, oldest_age_s, callbacks = row
    return Depth(ready, scheduled, running, float(oldest_age_s), callbacks)


async def select_status(connection: Connection, task_id: UUID) -> Status | None:
    row = await (await connection.execute(SELECT_STATUS, (task_id,))).fetchone()
    return row[0] if row else None


async def retry(connection: Connection, task_id: UUID) -> Task | None:
    """The task, queued again, with a job; None unless it has failed and may still start."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        task = await (await cursor.execute(RETRY.encode(), (task_id,))).fetchone()
    if task:
        await insert_jobs(connection, [task.id], there=["todo"])  # one that is "doing" is of the run that has failed
    return task
