"""What every worker does beside its tasks: gives back those of dead workers, and deletes what is over.

1. Every few seconds: jobs of workers without a sign of life are deleted, and their tasks and callbacks get new ones. A
   new job, for the old one's worker may only have been frozen: what it does to its job must not touch another's.
2. Every minute: a task that waits or runs, or whose callback is due, and that has no job gets one (no fault known leads
   there; a bug might), and the engine's jobs that nobody will run are deleted.
3. Every minute: tasks that ended longer than TASK_RESULT_TTL ago, and day-old answers to Idempotency-Keys, are deleted,
   so many at a time.

One worker at a time does each, behind an advisory lock; the others find nothing to do.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from service.db.pool import Database
from service.errors import Unavailable
from service.tasks import store, upkeep_store
from service.tasks.news import News
from service.tasks.store import CALLBACK_LABEL, JOB_LABEL

log = structlog.get_logger()

CLEAN_EVERY_S = 60.0
# A dead worker is looked for so often within the time after which it counts as dead.
LOOKS = 3
ROWS = 500  # deleted in one transaction: a few ms


class Upkeep:
    """`recover()` and `clean()` loop for ever. `kept_s`: how long a task is kept after its end."""

    def __init__(self, db: Database, news: News, dead_after_s: float, kept_s: float) -> None:
        self._db, self._news = db, news
        self._dead_after_s, self._kept_s = dead_after_s, kept_s

    async def recover(self) -> None:
        await self._always(self._dead_after_s / LOOKS, self.give_back)

    async def clean(self) -> None:
        await self._always(CLEAN_EVERY_S, self.clean_once)

    async def _always(self, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Unavailable as error:
                log.warning("tasks.upkeep_later", reason=error.detail)
            await asyncio.sleep(every_s)

    async def give_back(self) -> None:
        async with self._db.connection("recover_tasks") as connection:
            if not await store.try_lock(connection, "upkeep"):
                return
            dead = await upkeep_store.delete_dead_jobs(connection, self._dead_after_s)
            again = await upkeep_store.insert_jobs(connection, dead)
            call_again = await upkeep_store.insert_callback_jobs(connection, dead)
        self._told("task.recovered", again)
        self._told("task.callback_recovered", call_again, CALLBACK_LABEL)

    async def clean_once(self) -> None:
        async with self._db.connection("mend_tasks") as connection:
            if not await store.try_lock(connection, "upkeep"):
                return
            await upkeep_store.delete_idle_jobs(connection)
            again = await upkeep_store.insert_jobs(connection, await upkeep_store.select_jobless(connection))
            uncalled = await upkeep_store.select_uncalled(connection)
            call_again = await upkeep_store.insert_callback_jobs(connection, uncalled)
        self._told("task.had_no_job", again)
        self._told("task.callback_had_no_job", call_again, CALLBACK_LABEL)
        await self._until_few(lambda connection: upkeep_store.delete_finished(connection, self._kept_s, ROWS))
        await self._until_few(lambda connection: upkeep_store.delete_submissions(connection, ROWS))

    def _told(self, event: str, tasks: list[UUID], label: str = JOB_LABEL) -> None:
        for task_id in tasks:
            log.warning(event, task_id=str(task_id))
        self._news.recovered(len(tasks), label)

    async def _until_few(self, delete: Callable[[store.Connection], Awaitable[int]]) -> None:
        deleted = ROWS
        while deleted == ROWS:
            async with self._db.connection("delete_tasks") as connection:
                deleted = await delete(connection)
