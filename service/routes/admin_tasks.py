"""`/api/admin/tasks`: everybody's tasks that failed, without what they are about; to try one again."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.admin.audit import Action, Audit
from service.errors import PROBLEM, Conflict, NotFound
from service.http.contract import answers
from service.http.operation import Call
from service.pages import Page, Place
from service.routes.admin import actor, answer
from service.routes.admin_requests import STRICT, Id, fitted
from service.routes.task_answers import TaskBrief, brief
from service.routes.task_requests import LIMIT_MAX, TaskPath, task_place
from service.tasks.oversight import Oversight, retry
from service.tasks.oversight_store import FailedTask


class FailedTasksQuery(BaseModel):
    """`reason`: only those that failed with this problem, such as `given-up`."""

    model_config = STRICT
    status: Literal["failed"] = "failed"
    reason: Annotated[str | None, Field(pattern="^[a-z-]{1,40}$")] = None
    user: Id | None = None
    cursor: Annotated[str, Field(max_length=200)] = ""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 20


class FailedTaskBrief(TaskBrief):
    """Whose it is, which request made it, and the code of the problem it failed with."""

    user_id: str
    request_id: str
    reason: str | None


class FailedTasksPage(TypedDict):
    """Go on with `next_cursor` until it is null."""

    tasks: list[FailedTaskBrief]
    next_cursor: str | None


class RetryAnswer(TypedDict):
    """`id` is the action's in the audit trail."""

    id: str
    task: TaskBrief


class QueueAnswer(TypedDict):
    """Tasks that could start now, that shall start later, that run; how long the oldest of the first could have.
    `callbacks`: ends of tasks that their receivers are still to be told."""

    ready: int
    scheduled: int
    running: int
    oldest_age_s: float
    callbacks: int


class AdminTaskRoutes:
    def __init__(self, audit: Audit, oversight: Oversight) -> None:
        self._audit, self._oversight = audit, oversight

    @answers(QueueAnswer)
    async def queue(self, call: Call[None]) -> Response:
        """Count the tasks that wait and run, and the callbacks that are due; tell how long the oldest task waits."""
        return answer(vars(await self._oversight.depth()))

    @answers(FailedTasksPage, query=FailedTasksQuery)
    async def list_tasks(self, call: Call[None]) -> Response:
        """List everybody's tasks that failed, the newest first, page by page."""
        asked = fitted(FailedTasksQuery, call.request.query_params)
        after = task_place(asked.cursor)
        rows = await self._oversight.page(asked.reason, asked.user, after, asked.limit + 1)
        page: Page[FailedTask] = Page.of(rows, asked.limit, lambda row: Place(row.created_at, str(row.id)))
        return answer(FailedTasksPage(tasks=[described(row) for row in page.rows], next_cursor=page.next_cursor))

    @answers(RetryAnswer, status=202, segments=TaskPath, errors=(Conflict, NotFound))
    async def retry(self, call: Call[Any]) -> Response:
        """Put a failed task into the queue again, with all its tries."""
        task_id = fitted(TaskPath, call.request.path_params).task_id
        async with self._audit.recording(Action(actor(call), "retry_task", str(task_id), {})) as (connection, recorded):
            task = await retry(connection, task_id)
        await self._oversight.tell(task)
        return answer(RetryAnswer(id=str(recorded.id), task=brief(task)), 202)


def described(row: FailedTask) -> FailedTaskBrief:
    reason = row.problem.removeprefix(PROBLEM) if row.problem else None
    return {**brief(row), "user_id": row.user_id, "request_id": row.request_id, "reason": reason}
