"""SQL of tasks. Every function takes the connection first; parameters are bound.

A task and the engine's job for it are written in one transaction. The job carries the task's id, also as its queueing
lock, which is unique among waiting jobs and so finds it (procrastinate's `schema.sql`). One that may not start yet is
`scheduled`: it has no job until its moment has come (`upkeep_store.py`).
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic_core import to_json

from service.pages import Place
from service.tasks.records import NewTask, Status, Submitter, Task
from service.tasks.turns import EPOCH, LATEST, TURN_S, Waiting

Connection = AsyncConnection[Any]

QUEUE, JOB = "chat", "run_task"
JOB_LABEL = "chat"  # in metrics
CALLBACK_QUEUE, CALLBACK_JOB, CALLBACK_LABEL = "callbacks", "run_callback", "callback"


def defer(turn: str = "turn", *, lock: str = "id::text", not_before: str = "NULL") -> str:
    """SQL that makes the engine's jobs of the tasks selected, by its own function; the parameters are SQL too."""
    return f"""procrastinate_defer_jobs_v1(array_agg(
        (%(queue)s, %(job)s, -{turn}, NULL, {lock}, jsonb_build_object('task_id', id), {not_before})
        ::procrastinate_job_to_defer_v1))"""


COLUMNS = ", ".join(field.name for field in fields(Task))
# Statements that follow see what was committed while this one waited; within one statement they would not.
LOCK_USER = "SELECT pg_advisory_xact_lock(hashtextextended('tasks:' || %s, 0))"
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('submission:' || %s, 0))"
SELECT_WAITING = """
SELECT now(), count(*),
       max(turn) FILTER (WHERE ready AND priority = 1), max(turn) FILTER (WHERE ready AND priority = 0),
       max(turn) FILTER (WHERE ready AND priority = -1)
FROM (SELECT priority, turn, status = 'queued' AND (not_before IS NULL OR not_before <= now()) AS ready
      FROM tasks WHERE user_id = %s AND status IN ('queued', 'running')) AS mine"""
INSERT_TASKS = f"""
WITH made AS (
    INSERT INTO tasks (id, batch_id, user_id, key_hash, request, priority, turn, not_before, deadline, callback_url,
                       request_id, traceparent, scheduled)
    SELECT id, %(batch_id)s, %(user_id)s, %(key_hash)s, request, priority, turn, not_before, deadline, callback_url,
           %(request_id)s, %(traceparent)s, coalesce(not_before > now(), false)
    FROM json_to_recordset(%(tasks)s::json) AS new (
        id uuid, request jsonb, priority smallint, turn integer, not_before timestamptz, deadline timestamptz,
        callback_url text)
    RETURNING id, turn, scheduled
)
SELECT {defer()}
FROM made WHERE NOT scheduled"""  # noqa: S608 - our own parts
SELECT_TASK = f"SELECT {COLUMNS} FROM tasks WHERE id = %s AND user_id = %s"  # noqa: S608 - our own columns
SELECT_STATE = "SELECT status, attempt FROM tasks WHERE id = %s AND user_id = %s"
# What may be large is left out where nobody is told of it: a page of results would be a hundred megabytes.
LARGE = {"request": "'{}'::jsonb AS request", "result": "NULL::jsonb AS result", "error": "NULL::jsonb AS error"}
BRIEF = ", ".join(LARGE.get(field.name, field.name) for field in fields(Task))
SELECT_PAGE = f"""
SELECT {BRIEF} FROM tasks
WHERE user_id = %(user_id)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s::uuid))
ORDER BY created_at DESC, id DESC LIMIT %(rows)s"""  # noqa: S608 - our own columns
# A task that a dead worker was running is begun again; one whose deadline has passed is not.
BEGIN = "UPDATE tasks SET status = 'running', started_at = now(),"
MAY_BEGIN = "status IN ('queued', 'running') AND (deadline IS NULL OR deadline > now())"
# A job that is still its task's was taken too long ago to be run at once: that try is counted, and begins only now.
START = f"""
{BEGIN} attempt = attempt + (job_id IS DISTINCT FROM %(job_id)s)::int, job_id = %(job_id)s
WHERE id = %(id)s AND {MAY_BEGIN}
  AND EXISTS (SELECT FROM procrastinate_jobs WHERE id = %(job_id)s AND status = 'doing')
RETURNING {COLUMNS}"""
# Only the run that began last may end a task: another may have been taken for dead and replaced. Its job tells it from
# the runs before an administrator had the task tried again, and is over with it.
FINISH = """
WITH ended AS (
    UPDATE tasks SET status = %(status)s, finished_at = now(), result = %(result)s, error = %(error)s, job_id = NULL
    WHERE id = %(id)s AND attempt = %(attempt)s AND job_id = %(job_id)s AND status = 'running'
    RETURNING finished_at
), over AS (
    DELETE FROM procrastinate_jobs WHERE id = %(job_id)s AND EXISTS (SELECT FROM ended)
)
SELECT finished_at FROM ended"""
FAIL_LATE = f"""
UPDATE tasks SET status = 'failed', finished_at = now(), job_id = NULL,
                 error = %s::jsonb || jsonb_build_object('request_id', request_id)
WHERE id = %s AND status IN ('queued', 'running') AND deadline <= now()
  AND EXISTS (SELECT FROM procrastinate_jobs WHERE id = %s AND status = 'doing') RETURNING {COLUMNS}"""  # noqa: S608 - our own columns
PUT_BACK = f"""
UPDATE tasks SET status = 'queued', attempt = attempt - %(uncounted)s, job_id = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND job_id = %(job_id)s AND status = 'running' RETURNING {COLUMNS}"""  # noqa: S608 - our own columns
CANCEL = f"""
UPDATE tasks SET status = 'cancelled', finished_at = now()
WHERE id = %s AND user_id = %s AND status IN ('queued', 'running') RETURNING {COLUMNS}"""  # noqa: S608 - our own columns
# A waiting job is deleted; one that runs is told, by NOTIFY to its worker.
CANCEL_WAITING_JOB = """
SELECT procrastinate_cancel_job_v1(id, false, true) FROM procrastinate_jobs
WHERE queueing_lock = %s::text AND status = 'todo'"""
CANCEL_RUNNING_JOB = "SELECT procrastinate_cancel_job_v1(%s, true, false)"
# A user's callbacks stand behind one another as his tasks did (`turns.py`): those that a silent receiver holds up let
# other users' pass. Their jobs have no lock: one of an earlier end may still be there, and finds nothing to do.
CALL_BACK = f"""
WITH due AS (
    UPDATE tasks SET callback_status = 'pending', callback_attempts = 0, callback_turn = least(%(latest)s, greatest(
        extract(epoch FROM now() - %(epoch)s)::bigint, %(turn_s)s + (
            SELECT max(mine.callback_turn)::bigint FROM tasks AS mine
            WHERE mine.user_id = tasks.user_id AND mine.callback_status = 'pending')))
    WHERE id = %(id)s RETURNING id, callback_turn
)
SELECT {defer("callback_turn", lock="NULL")}
FROM due"""  # noqa: S608 - our own parts
SELECT_SUBMISSION = "SELECT body_digest, answer FROM task_submissions WHERE user_id = %s AND key = %s"
INSERT_SUBMISSION = "INSERT INTO task_submissions (user_id, key, body_digest, answer) VALUES (%s, %s, %s, %s)"


async def lock_user(connection: Connection, user_id: str) -> None:
    """Until the transaction ends nobody else adds to this user's tasks."""
    await connection.execute(LOCK_USER, (user_id,))


async def try_lock(connection: Connection, name: str) -> bool:
    """False while another request with this name is under way."""
    row = await (await connection.execute(TRY_LOCK, (name,))).fetchone()
    return bool(row and row[0])


async def select_waiting(connection: Connection, user_id: str) -> tuple[datetime, Waiting]:
    """PostgreSQL's time, and what the user has open."""
    row = await (await connection.execute(SELECT_WAITING, (user_id,))).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row; mypy cannot know
    now, count, *last = row
    return now, Waiting(count, {p: turn for p, turn in zip((1, 0, -1), last, strict=True) if turn is not None})


async def insert_tasks(
    connection: Connection, by: Submitter, tasks: Sequence[NewTask], turns: Sequence[int], batch_id: UUID | None
) -> None:
    """The tasks, and the jobs of those that may start."""
    rows = [{**vars(task), "turn": turn} for task, turn in zip(tasks, turns, strict=True)]
    given = vars(by) | {"batch_id": batch_id, "tasks": to_json(rows).decode(), "queue": QUEUE, "job": JOB}
    await connection.execute(INSERT_TASKS.encode(), given)


async def select_task(connection: Connection, task_id: UUID, user_id: str) -> Task | None:
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        return await (await cursor.execute(SELECT_TASK.encode(), (task_id, user_id))).fetchone()


async def select_state(connection: Connection, task_id: UUID, user_id: str) -> tuple[Status, int] | None:
    """Its status and attempts: a task itself may weigh megabytes."""
    row = await (await connection.execute(SELECT_STATE, (task_id, user_id))).fetchone()
    return (row[0], row[1]) if row else None


async def select_page(
    connection: Connection,
    user_id: str,
    status: Status | None,
    batch_id: UUID | None,
    after: Place | None,
    rows: int,
) -> list[Task]:
    """The newest first."""
    place = {"at": after and after.at, "id": after and after.name}
    asked = {"user_id": user_id, "status": status, "batch_id": batch_id, "rows": rows, **place}
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        return await (await cursor.execute(SELECT_PAGE.encode(), asked)).fetchall()


async def start(connection: Connection, task_id: UUID, job_id: int) -> Task | None:
    """The task, now running; None where it is over, or its deadline has passed."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        return await (await cursor.execute(START.encode(), {"id": task_id, "job_id": job_id})).fetchone()


async def call_back(connection: Connection, task: Task) -> Task:
    """Of a task that this transaction ends: the job that tells its receiver, if it has one."""
    if task.callback_url is None:
        return task
    place = {"epoch": EPOCH, "turn_s": TURN_S, "latest": LATEST}
    await connection.execute(CALL_BACK.encode(), {"id": task.id, "queue": CALLBACK_QUEUE, "job": CALLBACK_JOB, **place})
    return replace(task, callback_status="pending", callback_attempts=0)


async def finish(
    connection: Connection, task: Task, status: Status, result: dict[str, Any] | None, error: dict[str, Any] | None
) -> Task | None:
    """The task, now over, and its job with it; None where it was ended, or begun anew, by somebody else."""
    values = {"result": result and Jsonb(result), "error": error and Jsonb(error)}
    given = {"id": task.id, "attempt": task.attempt, "job_id": task.job_id, "status": status, **values}
    row = await (await connection.execute(FINISH, given)).fetchone()
    if row is None:
        return None
    ended = replace(task, status=status, finished_at=row[0], result=result, error=error, job_id=None)
    return await call_back(connection, ended)


async def fail_late(connection: Connection, task_id: UUID, job_id: int, error: dict[str, Any]) -> Task | None:
    """The task, now failed, if its deadline has passed."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        late = await (await cursor.execute(FAIL_LATE.encode(), (Jsonb(error), task_id, job_id))).fetchone()
    return await call_back(connection, late) if late else None


async def put_back(connection: Connection, task: Task, *, counted: bool) -> Task | None:
    """To the queue again; `counted`: the try was one. None where it was ended, or begun anew, by somebody else."""
    values = {"id": task.id, "attempt": task.attempt, "job_id": task.job_id, "uncounted": int(not counted)}
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        return await (await cursor.execute(PUT_BACK.encode(), values)).fetchone()


async def cancel(connection: Connection, task_id: UUID, user_id: str) -> Task | None:
    """The task, now cancelled, and its job with it; None where there is none that is open."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        task = await (await cursor.execute(CANCEL.encode(), (task_id, user_id))).fetchone()
    if task is None:
        return None
    await connection.execute(CANCEL_WAITING_JOB, (task.id,))
    if task.job_id is not None:
        await connection.execute(CANCEL_RUNNING_JOB, (task.job_id,))
    return await call_back(connection, task)


async def select_submission(connection: Connection, user_id: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
    """The digest of the body that came with this key, and what was answered."""
    row = await (await connection.execute(SELECT_SUBMISSION, (user_id, key))).fetchone()
    return (row[0], row[1]) if row else None


async def insert_submission(
    connection: Connection, user_id: str, key: str, digest: bytes, answer: dict[str, Any]
) -> None:
    await connection.execute(INSERT_SUBMISSION, (user_id, key, digest, Jsonb(answer)))
