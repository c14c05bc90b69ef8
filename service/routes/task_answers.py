"""What is answered of tasks."""

from datetime import datetime
from typing import Any, Literal, cast

from typing_extensions import TypedDict

from service.http.openapi_parts import Problem
from service.routes.chat_answers import ChatAnswer, ChatAnswers
from service.tasks.oversight_store import FailedTask
from service.tasks.records import OPEN, CallbackStatus, Status, Task

Told = Literal["queued", "started", "delta", "done", "failed", "cancelled"]
NAMES: dict[int, Literal["high", "normal", "low"]] = {1: "high", 0: "normal", -1: "low"}


class TaskBrief(TypedDict):
    """`attempts`: how often it was begun."""

    id: str
    batch_id: str | None
    status: Status
    priority: Literal["high", "normal", "low"]
    attempts: int
    created_at: str
    not_before: str | None
    deadline: str | None
    started_at: str | None
    finished_at: str | None


class TaskCallback(TypedDict):
    """Whether `url` has been told of the task's end: `status` is null before it; `attempts`: how often it was tried."""

    url: str
    status: CallbackStatus | None
    attempts: int


class TaskAnswer(TaskBrief):
    """`result` is what a chat would have been answered; `error` why there is none."""

    request: dict[str, Any]
    result: ChatAnswer | ChatAnswers | None
    error: Problem | None
    callback: TaskCallback | None


class TaskEnded(TypedDict):
    """What is sent to a `callback_url`; `timestamp` is the task's end."""

    type: Literal["task.done", "task.failed", "task.cancelled"]
    timestamp: str
    data: TaskBrief


class TasksMade(TypedDict):
    """In the order asked."""

    ids: list[str]
    batch_id: str | None


class TasksPage(TypedDict):
    tasks: list[TaskBrief]
    next_cursor: str | None


def brief(task: Task | FailedTask) -> TaskBrief:
    return {
        "id": str(task.id),
        "batch_id": told(task.batch_id),
        "status": task.status,
        "priority": NAMES[task.priority],
        "attempts": task.attempt,
        "created_at": task.created_at.isoformat(),
        "not_before": told(task.not_before),
        "deadline": told(task.deadline),
        "started_at": told(task.started_at),
        "finished_at": told(task.finished_at),
    }


def event_of(status: Status) -> Told:
    """What it is called when a task has come to this."""
    return "started" if status == "running" else status


def described(task: Task) -> dict[str, Any]:
    """A TaskAnswer."""
    return {
        **brief(task),
        "request": task.request,
        "result": task.result,
        "error": task.error,
        "callback": callback(task),
    }


def callback(task: Task) -> TaskCallback | None:
    if task.callback_url is None:
        return None
    if task.status in OPEN:  # what was told of an earlier end does not count
        return {"url": task.callback_url, "status": None, "attempts": 0}
    return {"url": task.callback_url, "status": task.callback_status, "attempts": task.callback_attempts}


def ended(task: Task) -> TaskEnded:
    """Of a task that is over."""
    kind = cast(Literal["task.done", "task.failed", "task.cancelled"], f"task.{task.status}")
    return {"type": kind, "timestamp": told(task.finished_at) or "", "data": brief(task)}


def told(value: Any) -> str | None:
    """RFC 3339 for a moment."""
    if value is None:
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)
