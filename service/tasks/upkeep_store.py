"""SQL of the upkeep of tasks. Every function takes the connection first; parameters are bound."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from service.tasks.records import Task
from service.tasks.store import CALLBACK_JOB, CALLBACK_QUEUE, JOB, LARGE, QUEUE, Connection, defer
from service.tasks.turns import EPOCH, LATEST, TURN_S

# The engine forgets a worker that was silent for long; its jobs then have none.
DELETE_DEAD_JOBS = """
DELETE FROM procrastinate_jobs
WHERE status = 'doing' AND (worker_id IS NULL OR worker_id IN (
    SELECT id FROM procrastinate_workers WHERE last_heartbeat < now() - make_interval(secs => %s)))
RETURNING (args ->> 'task_id')::uuid"""
PRUNE_WORKERS = "SELECT procrastinate_prune_stalled_workers_v1(%s)"
# Those that are still open and that nobody gave a job meanwhile.
INSERT_JOBS = f"""
WITH again AS (
    SELECT id, turn, not_before FROM tasks
    WHERE id = ANY (%(ids)s) AND status IN ('queued', 'running') AND NOT EXISTS (
        SELECT FROM procrastinate_jobs WHERE queueing_lock = tasks.id::text AND status::text = ANY (%(there)s))
), made AS (
    SELECT {defer(not_before="not_before")}
    FROM again HAVING count(*) > 0
)
SELECT id FROM again WHERE EXISTS (SELECT FROM made)"""  # noqa: S608 - our own parts
# They get their turns now, as if they were taken now (`turns.py`): those due together stand behind one another and
# behind what their user has waiting. A worker of an older release gives those a job that have none.
INSERT_DUE = f"""
WITH picked AS MATERIALIZED (
    SELECT id, user_id, priority, not_before FROM tasks WHERE scheduled AND status = 'queued' AND not_before <= now()
    ORDER BY not_before LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), ahead AS MATERIALIZED (
    SELECT user_id, priority, (
        SELECT max(turn)::bigint FROM tasks AS mine
        WHERE mine.user_id = these.user_id AND status = 'queued' AND NOT scheduled AND mine.priority >= these.priority
    ) AS last FROM (SELECT DISTINCT user_id, priority FROM picked) AS these
), placed AS (
    SELECT id, greatest(floor(extract(epoch FROM now() - %(epoch)s))::bigint, %(turn_s)s + last) + %(turn_s)s * (
        row_number() OVER (PARTITION BY user_id ORDER BY priority DESC, not_before, id) - 1) AS turn
    FROM picked JOIN ahead USING (user_id, priority)
), due AS (
    UPDATE tasks SET scheduled = false, turn = least(%(latest)s, placed.turn) FROM placed WHERE tasks.id = placed.id
    RETURNING tasks.id, tasks.turn
), made AS (
    SELECT {defer()}
    FROM due WHERE NOT EXISTS (
        SELECT FROM procrastinate_jobs WHERE queueing_lock = due.id::text AND status = 'todo')
)
SELECT (SELECT count(*) FROM due) FROM made"""  # noqa: S608 - our own parts
# Of what they ask the agent only, by which on-call is told: a hundred requests may weigh a hundred megabytes.
AGENT = "jsonb_strip_nulls(jsonb_build_object('agent', request -> 'agent')) AS request"
FAIL_LATE = f"""
UPDATE tasks SET status = 'failed', finished_at = now(), job_id = NULL,
                 error = %(error)s::jsonb || jsonb_build_object('request_id', request_id)
WHERE id = ANY (ARRAY(
    SELECT id FROM tasks WHERE status = 'queued' AND deadline <= now()
    ORDER BY deadline LIMIT %(rows)s FOR UPDATE SKIP LOCKED))
RETURNING {", ".join((LARGE | {"request": AGENT}).get(field.name, field.name) for field in fields(Task))}"""  # noqa: S608 - our own columns
# One that a worker has just taken finds its task over.
DELETE_JOBS = "DELETE FROM procrastinate_jobs WHERE queueing_lock = ANY (%s) AND status = 'todo'"
SELECT_JOBLESS = """
SELECT id FROM tasks
WHERE status IN ('queued', 'running') AND NOT scheduled AND NOT EXISTS (
    SELECT FROM procrastinate_jobs WHERE queueing_lock = tasks.id::text AND status IN ('todo', 'doing'))"""
# Of tasks that are over and whose receiver is still to be told.
UNCALLED = """callback_status = 'pending' AND status NOT IN ('queued', 'running') AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS jobs
    WHERE queue_name = %(queue)s AND args ->> 'task_id' = tasks.id::text AND jobs.status IN ('todo', 'doing'))"""
INSERT_CALLBACK_JOBS = f"""
WITH again AS (
    SELECT id, callback_turn FROM tasks WHERE id = ANY (%(ids)s) AND {UNCALLED}
), made AS (
    SELECT {defer("callback_turn", lock="NULL")}
    FROM again HAVING count(*) > 0
)
SELECT id FROM again WHERE EXISTS (SELECT FROM made)"""  # noqa: S608 - our own condition
SELECT_UNCALLED = f"SELECT id FROM tasks WHERE {UNCALLED}"  # noqa: S608 - our own condition
# Such as one that was cancelled while its worker gave it back.
DELETE_IDLE_JOBS = "DELETE FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')"
DELETE_FINISHED = """
DELETE FROM tasks WHERE id = ANY (ARRAY(
    SELECT id FROM tasks WHERE finished_at < now() - make_interval(secs => %s) LIMIT %s FOR UPDATE SKIP LOCKED))"""
DELETE_SUBMISSIONS = """
DELETE FROM task_submissions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM task_submissions WHERE created_at < now() - interval '1 day' LIMIT %s FOR UPDATE SKIP LOCKED))"""


async def delete_dead_jobs(connection: Connection, dead_after_s: float) -> list[UUID]:
    """The tasks of the jobs, runs and callbacks, of workers that gave no sign of life for so long."""
    found = await (await connection.execute(DELETE_DEAD_JOBS, (dead_after_s,))).fetchall()
    await connection.execute(PRUNE_WORKERS, (dead_after_s,))
    return [row[0] for row in found]


async def insert_jobs(
    connection: Connection, ids: Sequence[UUID], there: Sequence[str] = ("todo", "doing")
) -> list[UUID]:
    """Those that got one."""
    if not ids:
        return []
    given = {"ids": list(ids), "queue": QUEUE, "job": JOB, "there": list(there)}
    return [row[0] for row in await (await connection.execute(INSERT_JOBS.encode(), given)).fetchall()]


async def select_jobless(connection: Connection) -> list[UUID]:
    return [row[0] for row in await (await connection.execute(SELECT_JOBLESS)).fetchall()]


async def insert_callback_jobs(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Those that got one."""
    if not ids:
        return []
    given = {"ids": list(ids), "queue": CALLBACK_QUEUE, "job": CALLBACK_JOB}
    return [row[0] for row in await (await connection.execute(INSERT_CALLBACK_JOBS.encode(), given)).fetchall()]


async def select_uncalled(connection: Connection) -> list[UUID]:
    """Tasks that are over whose receiver is still to be told, and for which there is no job."""
    found = await connection.execute(SELECT_UNCALLED.encode(), {"queue": CALLBACK_QUEUE})
    return [row[0] for row in await found.fetchall()]


async def insert_due(connection: Connection, rows: int) -> int:
    """Jobs for scheduled tasks whose moment has come, at most `rows`, the earliest first; how many it were."""
    place = {"epoch": EPOCH, "turn_s": TURN_S, "latest": LATEST}
    found = await connection.execute(INSERT_DUE.encode(), {"rows": rows, "queue": QUEUE, "job": JOB, **place})
    row = await found.fetchone()
    return int(row[0]) if row else 0


async def fail_late(connection: Connection, error: dict[str, Any], rows: int) -> list[Task]:
    """Tasks that wait and whose deadline has passed, at most `rows`, now failed and without a job."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        found = await cursor.execute(FAIL_LATE.encode(), {"error": Jsonb(error), "rows": rows})
        late = await found.fetchall()
    if late:
        await connection.execute(DELETE_JOBS, ([str(task.id) for task in late],))
    return late


async def delete_idle_jobs(connection: Connection) -> None:
    await connection.execute(DELETE_IDLE_JOBS)


async def delete_finished(connection: Connection, kept_s: float, rows: int) -> int:
    """Those that ended longer ago than `kept_s`, at most `rows`; how many it were."""
    return (await connection.execute(DELETE_FINISHED, (kept_s, rows))).rowcount


async def delete_submissions(connection: Connection, rows: int) -> int:
    """Those older than a day, at most `rows`; how many it were."""
    return (await connection.execute(DELETE_SUBMISSIONS, (rows,))).rowcount
