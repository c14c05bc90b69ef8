"""Tasks: the queue behind the API, and the news of what becomes of them."""

import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from service.live.bus import Bus
from service.live.messages import Push
from service.routes.task_answers import brief, event_of
from service.routes.task_running import TellPiece
from service.tasks.news import Batched, Changed, News
from service.tasks.pieces import Piece
from service.tasks.queue import Tasks
from service.tasks.records import Task
from service.wiring.ground import Ground

# News of a task is worth telling to who reconnects within the bus's memory.
NEWS_S = 300


def push(user_id: str, payload: dict[str, Any]) -> Push:
    """For the owner's sockets, and whoever watches the task, on every node."""
    expires_at_ms = int((time.time() + NEWS_S) * 1000)
    return Push(type="task", users=frozenset({user_id}), payload=payload, expires_at_ms=expires_at_ms)


def change(task: Task) -> Push:
    return push(task.user_id, {"event": event_of(task.status), "task": brief(task)})


def told_by(bus: Bus) -> Changed:
    async def changed(task: Task) -> None:
        await bus.publish(change(task))

    return changed


def said_by(bus: Bus) -> Changed:
    """On nobody's time: a run asks its model at once. What a worker that dies has not told, the task's row tells."""

    async def changed(task: Task) -> None:
        bus.say(change(task))

    return changed


def batches_told_by(bus: Bus) -> Batched:
    """One message, for a thousand would crowd out what others have to say."""

    async def batched(user_id: str, batch_id: UUID, tasks: int) -> None:
        await bus.publish(push(user_id, {"event": "queued", "batch_id": str(batch_id), "count": tasks}))

    return batched


def pieces_told_by(bus: Bus) -> TellPiece:
    """While Redis is away pieces are lost: kept for its return, they would crowd out what is still worth saying."""

    async def tell(task: Task, piece: Piece) -> None:
        about = {"id": str(task.id), "attempts": task.attempt}
        payload = {"event": "delta", "task": about, "agent": piece.agent, "text": piece.text, "at": piece.at}
        if not bus.behind:
            with suppress(ValueError):  # a lone surrogate has no UTF-8
                await bus.publish(push(task.user_id, payload))

    return tell


def open_tasks(ground: Ground, bus: Bus) -> Tasks:
    news = News(ground.metrics, told_by(bus), batches_told_by(bus))
    return Tasks(ground.db, ground.settings.tasks_per_user, news)
