"""What a client may ask of tasks."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from service.errors import Invalid
from service.pages import Place
from service.routes.admin_requests import STRICT
from service.routes.chat_requests import BatchItem
from service.tasks.records import NewTask, Status

MOST_IN_BATCH = 1000
FARTHEST = timedelta(days=30)
# What a request for many tasks may weigh: a thousand of 4 KB each. Reading it holds the loop for 30 ms.
BATCH_BYTES = 4_000_000
PRIORITIES = {"high": 1, "normal": 0, "low": -1}
LIMIT_MAX = 100


def of_our_time(moment: datetime) -> datetime:
    """PostgreSQL knows other years than Python; what is farther away than FARTHEST is a mistake in either direction."""
    now = datetime.now(UTC)
    if not now - FARTHEST <= moment <= now + FARTHEST:
        raise ValueError(f"must be within {FARTHEST.days} days of now")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(of_our_time)]


class TaskItem(BatchItem):
    """What a chat asks, to be answered when its turn has come.

    It starts at `not_before` at the earliest and, once `deadline` has passed, not at all. `priority` orders your own
    tasks. With `stream` its answer is told piece by piece, to your sockets and to `GET …/events`. Once the task is
    over, `callback_url` is sent a POST that says so (see `callbacks`), again until it answers 2xx; it must begin with
    one of TASK_CALLBACK_URLS, be plain ASCII, and have neither user nor fragment.
    """

    stream: bool = False
    priority: Literal["high", "normal", "low"] = "normal"
    not_before: Moment | None = None
    deadline: Moment | None = None
    callback_url: Annotated[str | None, Field(max_length=2000)] = None

    @field_validator("deadline")
    @classmethod
    def after_start(cls, deadline: datetime | None, info: ValidationInfo) -> datetime | None:
        """One that has passed is refused by PostgreSQL's clock, for what has not been taken before (`queue.py`)."""
        not_before = info.data.get("not_before")
        if deadline and not_before and deadline <= not_before:
            raise ValueError("must lie after not_before")
        return deadline

    @model_validator(mode="after")
    def without_nul(self) -> "TaskItem":
        if b"\\u0000" in to_json(self.chat()).replace(b"\\\\", b""):  # PostgreSQL stores no NUL, in JSON neither
            raise ValueError("must not hold the character NUL")
        return self

    def chat(self) -> dict[str, Any]:
        """The body of the chat that it is, a ChatRequest."""
        body = self.model_dump(mode="json", include=set(BatchItem.model_fields), exclude_none=True)
        return body | {"stream": True} if self.stream else body

    def new(self) -> NewTask:
        priority = PRIORITIES[self.priority]
        return NewTask(uuid.uuid4(), self.chat(), priority, self.not_before, self.deadline, self.callback_url)


class TaskBatch(BaseModel):
    """Several tasks, all or none of which are taken."""

    model_config = STRICT
    tasks: Annotated[list[TaskItem], Field(min_length=1, max_length=MOST_IN_BATCH)]


def kind(body: Any) -> str:
    """By what was sent, so that faults are told of the one that was meant."""
    return "many" if isinstance(body, TaskBatch) or (isinstance(body, dict) and "tasks" in body) else "one"


class TaskRequest(
    RootModel[Annotated[Annotated[TaskItem, Tag("one")] | Annotated[TaskBatch, Tag("many")], Discriminator(kind)]]
):
    """A task, or `tasks`."""

    @property
    def items(self) -> list[TaskItem]:
        return self.root.tasks if isinstance(self.root, TaskBatch) else [self.root]


class TasksQuery(BaseModel):
    model_config = STRICT
    status: Status | None = None
    batch: uuid.UUID | None = None
    cursor: Annotated[str, Field(max_length=200)] = ""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 20


def task_place(cursor: str) -> Place | None:
    """Raises Invalid for what is no cursor of a list of tasks."""
    place = Place.parse(cursor)
    try:
        return place and replace(place, name=str(uuid.UUID(place.name)))
    except ValueError:
        raise Invalid(errors=[{"field": "cursor", "message": "is none that a page ended with"}]) from None


class TaskPath(BaseModel):
    task_id: uuid.UUID


class LastEventHeader(BaseModel):
    """As a client of server-sent events sends it by itself; what is no place of ours is as none."""

    last_event_id: str | None = Field(
        None, alias="Last-Event-ID", description="The last `id` that was read: what came after it is told first."
    )
