"""What every worker does beside its tasks: gives back those of dead workers, and deletes what is over.

1. Every few seconds: jobs of workers without a sign of life are deleted, and their tasks and callbacks get new ones. A
   new job, for the old one's worker may only have been frozen: what it does to its job must not touch another's.
2. Every minute: a task that waits or runs, or whose callback is due, and that has no job gets one (no fault known leads
   there; a bug might), and the engine's jobs that nobody will run are deleted.
3. Every second: scheduled tasks whose moment has come get their job, and what still waits after its deadline fails.
4. Every minute: tasks that ended longer than TASK_RESULT_TTL ago, and day-old answers to Idempotency-Keys, are deleted,
   so many at a time.

Of 1, 2 and 4 one worker at a time does any, behind an advisory lock; the others come back a second later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from service.background import Ran, unwatched
from service.db.pool import Database
from service.errors import Unavailable
from service.tasks import store, upkeep_store
from service.tasks.lateness import Lateness
from service.tasks.news import News
from service.tasks.store import CALLBACK_LABEL, JOB_LABEL

log = structlog.get_logger()

CLEAN_EVERY_S = 60.0
DUE_EVERY_S = 1.0
# A dead worker is looked for so often within the time after which it counts as dead.
LOOKS = 3
ROWS = 500  # changed in one transaction: a few ms
LOCKED_RETRY_S = 1.0


class Upkeep:
    """`recover()`, `clean()` and `begin()` loop for ever. `kept_s`: how long a task is kept after its end. `recovered`,
    `cleaned` and `begun` hear of each time that this process did it."""

    def __init__(
        self,
        db: Database,
        news: News,
        lateness: Lateness,
        dead_after_s: float,
        kept_s: float,
        *,
        recovered: Ran = unwatched,
        cleaned: Ran = unwatched,
        begun: Ran = unwatched,
    ) -> None:
        self._db, self._news, self._lateness = db, news, lateness
        self._dead_after_s, self._kept_s = dead_after_s, kept_s
        self._recovered, self._cleaned, self._begun = recovered, cleaned, begun

    async def recover(self) -> None:
        await self._always(self._dead_after_s / LOOKS, self.give_back)

    async def clean(self) -> None:
        await self._always(CLEAN_EVERY_S, self.clean_once)

    async def begin(self) -> None:
        await self._always(DUE_EVERY_S, self.keep_time)

    async def _always(self, every_s: float, work: Callable[[], Awaitable[bool]]) -> None:
        """`work` is False where another worker was at it."""
        while True:
            pause_s = every_s
            try:
                pause_s = every_s if await work() else LOCKED_RETRY_S
            except Unavailable as error:
                log.warning("tasks.upkeep_later", reason=error.detail)
            await asyncio.sleep(pause_s)

    async def give_back(self) -> bool:
        async with self._db.connection("recover_tasks") as connection:
            if not await store.try_lock(connection, "upkeep"):
                return False
            dead = await upkeep_store.delete_dead_jobs(connection, self._dead_after_s)
            again = await upkeep_store.insert_jobs(connection, dead)
            call_again = await upkeep_store.insert_callback_jobs(connection, dead)
        self._told("task.recovered", again)
        self._told("task.callback_recovered", call_again, CALLBACK_LABEL)
        self._recovered()
        return True

    async def clean_once(self) -> bool:
        async with self._db.connection("mend_tasks") as connection:
            if not await store.try_lock(connection, "upkeep"):
                return False
            await upkeep_store.delete_idle_jobs(connection)
            again = await upkeep_store.insert_jobs(connection, await upkeep_store.select_jobless(connection))
            uncalled = await upkeep_store.select_uncalled(connection)
            call_again = await upkeep_store.insert_callback_jobs(connection, uncalled)
        self._told("task.had_no_job", again)
        self._told("task.callback_had_no_job", call_again, CALLBACK_LABEL)
        await self._until_few(
            "delete_tasks", lambda connection: upkeep_store.delete_finished(connection, self._kept_s, ROWS)
        )
        await self._until_few("delete_tasks", lambda connection: upkeep_store.delete_submissions(connection, ROWS))
        self._cleaned()
        return True

    async def keep_time(self) -> bool:
        """What is due first: it shall not wait for many that are late. Raises DatabaseUnavailable."""
        await self.begin_due()
        while await self._lateness.end_some():
            await self.begin_due()
        self._begun()
        return True

    async def begin_due(self) -> None:
        """Jobs for scheduled tasks whose moment has come; raises DatabaseUnavailable."""
        await self._until_few("begin_tasks", lambda connection: upkeep_store.insert_due(connection, ROWS))

    def _told(self, event: str, tasks: list[UUID], label: str = JOB_LABEL) -> None:
        for task_id in tasks:
            log.warning(event, task_id=str(task_id))
        self._news.recovered(len(tasks), label)

    async def _until_few(self, operation: str, change: Callable[[store.Connection], Awaitable[int]]) -> None:
        changed = ROWS
        while changed == ROWS:
            async with self._db.statement(operation) as connection:
                changed = await change(connection)
