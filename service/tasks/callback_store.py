"""SQL of callbacks. Every function takes the connection first; parameters are bound."""

from uuid import UUID

from psycopg.rows import class_row

from service.tasks.records import CallbackStatus, Task
from service.tasks.store import BRIEF, Connection

BEGIN = f"""
UPDATE tasks SET callback_attempts = callback_attempts + 1
WHERE id = %s AND callback_status = 'pending' AND status NOT IN ('queued', 'running')
RETURNING {BRIEF}"""  # noqa: S608 - our own columns
# Of this end: the task may have been begun again meanwhile, and ended.
END = """
UPDATE tasks SET callback_status = %s WHERE id = %s AND callback_status = 'pending' AND finished_at = %s"""


async def begin(connection: Connection, task_id: UUID) -> Task | None:
    """The task without what may be large, this try counted; None where there is nothing to tell any more."""
    async with connection.cursor(row_factory=class_row(Task)) as cursor:
        return await (await cursor.execute(BEGIN.encode(), (task_id,))).fetchone()


async def end(connection: Connection, task: Task, status: CallbackStatus) -> bool:
    """False where another run has ended it."""
    return (await connection.execute(END, (status, task.id, task.finished_at))).rowcount == 1
