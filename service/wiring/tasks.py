"""Tasks: the queue behind the API, and the news of what becomes of them."""

import time

from service.live.bus import Bus
from service.live.messages import Push
from service.routes.task_answers import brief
from service.tasks.news import Changed, News
from service.tasks.queue import Tasks
from service.tasks.records import Task
from service.wiring.ground import Ground

# News of a task is worth telling to who reconnects within the bus's memory.
NEWS_S = 300


def told_by(bus: Bus) -> Changed:
    """Tells the owner's sockets, on every node."""

    async def changed(task: Task) -> None:
        expires_at_ms = int((time.time() + NEWS_S) * 1000)
        payload = {"task": brief(task)}
        await bus.publish(
            Push(type="task", users=frozenset({task.user_id}), payload=payload, expires_at_ms=expires_at_ms)
        )

    return changed


def open_tasks(ground: Ground, bus: Bus) -> Tasks:
    return Tasks(ground.db, ground.settings.tasks_per_user, News(ground.metrics, told_by(bus)))
