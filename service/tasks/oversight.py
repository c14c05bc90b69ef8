"""Everybody's tasks as administrators see them: which failed and why, how many wait; what failed may be tried again."""

from uuid import UUID

from service.db.pool import Database
from service.errors import PROBLEM, Conflict, NotFound
from service.pages import Place
from service.tasks import oversight_store
from service.tasks.news import Changed
from service.tasks.oversight_store import Depth, FailedTask
from service.tasks.records import Task
from service.tasks.store import Connection


class Oversight:
    """`tell` is told of a task that is queued again. Every method raises DatabaseUnavailable while PostgreSQL is
    away."""

    def __init__(self, db: Database, tell: Changed) -> None:
        self._db, self.tell = db, tell

    async def page(self, reason: str | None, user_id: str | None, after: Place | None, rows: int) -> list[FailedTask]:
        """Those that failed, the newest first; `reason`: the code of a problem, such as `given-up`."""
        problem = reason and PROBLEM + reason
        async with self._db.connection("select_failed_tasks") as connection:
            return await oversight_store.select_page(connection, problem, user_id, after, rows)

    async def depth(self) -> Depth:
        async with self._db.connection("select_task_depth") as connection:
            return await oversight_store.select_depth(connection)


async def retry(connection: Connection, task_id: UUID) -> Task:
    """A failed task, queued as if it had never been begun; in the transaction of `connection`.

    Raises:
        NotFound: there is none.
        Conflict: it has not failed, or its deadline has passed; `task_status` says how it is.
    """
    task = await oversight_store.retry(connection, task_id)
    if task is None:
        status = await oversight_store.select_status(connection, task_id)
        if status is None:
            raise NotFound("There is no such task.")
        late = "Its deadline has passed." if status == "failed" else "Only a task that failed can be tried again."
        raise Conflict(late, task_status=status)
    return task
