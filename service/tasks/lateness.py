"""Tasks that have not begun by their deadline: they fail then, and not when a worker comes to them.

What has begun may end: a deadline is the last moment of a start. A run that another worker begins anew, or that is put
back to be tried again, is a start.
"""

from service.db.pool import Database
from service.errors import DeadlinePassed
from service.tasks import store, upkeep_store
from service.tasks.failures import Failures
from service.tasks.news import News
from service.tasks.runs import Problem

# In one transaction. A callback is a statement of its own, so that these take 0.1 s at the most.
ROWS = 100


class Lateness:
    """Any number of workers may look at the same time: each ends others."""

    def __init__(self, db: Database, problem: Problem, news: News, failures: Failures) -> None:
        self._db, self._problem, self._news, self._failures = db, problem, news, failures

    async def end_some(self) -> bool:
        """So many of those that wait; whether there may be more. Raises DatabaseUnavailable."""
        error = DeadlinePassed()
        async with self._db.connection("fail_late_tasks") as connection:
            late = await upkeep_store.fail_late(connection, self._problem(error, ""), ROWS)
            ended = [await store.call_back(connection, task) for task in late]
        for task in ended:
            await self._news.changed(task, ran=False)
            self._failures.failed(error, task)
        return len(ended) == ROWS
