"""The queue of tasks: submit, look, cancel. What is acknowledged is committed, the engine's job with it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from service.db.pool import Database
from service.errors import Conflict, Invalid, NotFound, TooMany
from service.pages import Place
from service.tasks import store
from service.tasks.news import News
from service.tasks.records import NewTask, Status, Submitter, Task
from service.tasks.turns import turns
from service.tasks.user_locks import UserLocks

# Nobody knows when the next of them ends.
FULL_RETRY_S = 10.0
# Of one user's submissions on one node; one takes a few ms, so these are gone within a second or two.
MOST_WAITING = 200
SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Submission:
    """Several tasks to be made together, or none of them. `key` and `digest` where the client gave an
    Idempotency-Key: its name, and the SHA-256 of the body."""

    tasks: Sequence[NewTask]
    batch_id: UUID | None = None
    key: str | None = None
    digest: bytes = b""


def digest_of(body: BaseModel) -> bytes:
    """Of a body's meaning: neither spaces nor the order of fields counts, for a model has its own."""
    return hashlib.sha256(body.model_dump_json().encode()).digest()


def refuse_late(asked: Submission, now: datetime) -> None:
    """Raises Invalid for what could never start. Not before an Idempotency-Key is looked up: who sends again gets the
    first answer, however late."""
    late = [number for number, task in enumerate(asked.tasks) if task.deadline and task.deadline <= now]
    if late:
        names = [f"tasks.{number}.deadline" if asked.batch_id else "deadline" for number in late[:SHOWN_FAULTS]]
        raise Invalid(errors=[{"field": name, "message": "has passed"} for name in names])


class Tasks:
    """Every method raises DatabaseUnavailable while PostgreSQL is away."""

    def __init__(self, db: Database, most_open: int, news: News) -> None:
        self._db, self._most, self._news = db, most_open, news
        self._locks = UserLocks(db.timeout_s, MOST_WAITING, lambda: db.up)

    async def submit(self, by: Submitter, asked: Submission, answer: dict[str, Any]) -> dict[str, Any]:
        """Make the tasks; returns `answer`, or what was answered to the first request with this Idempotency-Key.

        1. On this node a user's submissions come one after the other, and wait before they borrow a connection.
        2. Of two requests with one key at the same time, on two nodes, the second is refused: it may try again.
        3. A key that is known gives the first answer, if the body is the same.
        4. On all nodes one at a time for each user, so that the bound holds and turns follow one another.

        Raises:
            Conflict: a request with this key is under way.
            Invalid: this key came with another body, or a deadline has passed.
            TooMany: the user would have more than TASKS_PER_USER open, or submits too many at the same time.
        """
        async with self._locks.hold(by.user_id), self._db.connection("insert_tasks") as connection:
            if asked.key is not None:
                if not await store.try_lock(connection, f"{by.user_id}\n{asked.key}"):
                    raise Conflict("A request with this Idempotency-Key is under way.", retry_after_s=1.0)
                if known := await store.select_submission(connection, by.user_id, asked.key):
                    return self._repeated(asked, *known)
            await store.lock_user(connection, by.user_id)
            now, waiting = await store.select_waiting(connection, by.user_id)
            refuse_late(asked, now)
            if waiting.count + len(asked.tasks) > self._most:
                raise TooMany(
                    f"A user may have {self._most:,} tasks open; {waiting.count:,} are.", retry_after_s=FULL_RETRY_S
                )
            order = turns(now, waiting, [(task.priority, task.not_before) for task in asked.tasks])
            await store.insert_tasks(connection, by, asked.tasks, order, asked.batch_id)
            if asked.key is not None:
                await store.insert_submission(connection, by.user_id, asked.key, asked.digest, answer)
            made = None if asked.batch_id else await store.select_task(connection, asked.tasks[0].id, by.user_id)
        await self._tell(by, asked, made)
        return answer

    async def _tell(self, by: Submitter, asked: Submission, made: Task | None) -> None:
        """Of a batch once, however many tasks it has."""
        if made is not None:
            await self._news.changed(made)
        elif asked.batch_id is not None:
            await self._news.batched(by.user_id, asked.batch_id, len(asked.tasks))

    @staticmethod
    def _repeated(asked: Submission, digest: bytes, answer: dict[str, Any]) -> dict[str, Any]:
        if digest != asked.digest:
            raise Invalid("This Idempotency-Key came with another body before.")
        return answer

    async def read(self, user_id: str, task_id: UUID) -> Task:
        """Raises NotFound for what is not there, or another's."""
        async with self._db.connection("select_task") as connection:
            task = await store.select_task(connection, task_id, user_id)
        if task is None:
            raise NotFound("There is no such task.")
        return task

    async def state(self, user_id: str, task_id: UUID) -> tuple[Status, int] | None:
        """A task's status and attempts; None where it is not there."""
        async with self._db.connection("select_task_state") as connection:
            return await store.select_state(connection, task_id, user_id)

    async def page(
        self, user_id: str, status: Status | None, batch_id: UUID | None, after: Place | None, rows: int
    ) -> list[Task]:
        """The newest first."""
        async with self._db.connection("select_tasks") as connection:
            return await store.select_page(connection, user_id, status, batch_id, after, rows)

    async def cancel(self, user_id: str, task_id: UUID) -> Task:
        """Cancel what waits or runs; of what is over, as it is. Raises NotFound."""
        async with self._db.connection("cancel_task") as connection:
            task = await store.cancel(connection, task_id, user_id)
        if task is None:
            return await self.read(user_id, task_id)
        await self._news.changed(task)
        return task
