"""What a task is made of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Status = Literal["queued", "running", "done", "failed", "cancelled"]
CallbackStatus = Literal["pending", "delivered", "failed"]
OPEN: tuple[Status, ...] = ("queued", "running")


@dataclass(frozen=True)
class NewTask:
    """What a client asks for; `request` is the body of a chat. `priority` is 1, 0 or -1."""

    id: UUID
    request: dict[str, Any]
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None
    callback_url: str | None = None


@dataclass(frozen=True)
class Submitter:
    """In whose name tasks are made, and by which request."""

    user_id: str
    key_hash: bytes
    request_id: str
    traceparent: str


@dataclass(frozen=True)
class Task:
    """A row of `tasks`. The callback's status is that of the last end; None where there was none yet."""

    id: UUID
    batch_id: UUID | None
    user_id: str
    key_hash: bytes
    request: dict[str, Any]
    priority: int
    turn: int
    not_before: datetime | None
    deadline: datetime | None
    callback_url: str | None
    request_id: str
    traceparent: str
    status: Status
    attempt: int
    job_id: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    callback_status: CallbackStatus | None
    callback_attempts: int
