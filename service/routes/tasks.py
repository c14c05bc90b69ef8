"""`/api/v1/tasks`: work that is answered later, by a worker; a user's own tasks, another's are not there."""

import uuid
from collections.abc import Mapping
from typing import Any

from opentelemetry.propagate import inject
from pydantic_core import to_json
from starlette.responses import Response

from service.agents.catalogue import Catalogue
from service.errors import Conflict, Invalid, NotFound, TooMany
from service.http.contract import answers
from service.http.operation import Call
from service.pages import Page, Place
from service.routes.admin import idempotency_key
from service.routes.admin_requests import RetryHeader, fitted
from service.routes.task_answers import TaskAnswer, TaskEnded, TasksMade, TasksPage, brief, described
from service.routes.task_requests import TaskItem, TaskPath, TaskRequest, TasksQuery, task_place
from service.tasks.allow_list import AllowList
from service.tasks.queue import Submission, Tasks, digest_of
from service.tasks.records import NewTask, Submitter, Task

UNCACHED = ("Cache-Control",)
EXAMPLES = {
    "a task": {"agent": "reasoning", "task": "What is the capital of France?", "priority": "low"},
    "two at once": {"tasks": [{"agent": "coding", "task": "Sort a list"}, {"agent": "writing", "task": "A haiku"}]},
}


class TaskRoutes:
    """What it answers is somebody's words, so nobody on the way may keep it."""

    def __init__(self, tasks: Tasks, catalogue: Catalogue, callback_urls: list[str]) -> None:
        self._tasks, self._catalogue, self._callbacks = tasks, catalogue, AllowList(callback_urls)

    @answers(
        TasksMade,
        status=202,
        headers=RetryHeader,
        tells=UNCACHED,
        errors=(Conflict, NotFound, TooMany),
        examples=EXAMPLES,
        calls={"callback_url": TaskEnded},
    )
    async def submit(self, call: Call[TaskRequest]) -> Response:
        """Take a task, or up to a thousand, to be answered later; with an Idempotency-Key once, however often it is
        sent."""
        key = idempotency_key(call)
        made = [self._checked(item) for item in call.body.items]
        batch = None if isinstance(call.body.root, TaskItem) else uuid.uuid4()
        digest = digest_of(call.body) if key else b""
        told: TasksMade = {"ids": [str(task.id) for task in made], "batch_id": str(batch) if batch else None}
        answered = await self._tasks.submit(submitter(call), Submission(made, batch, key, digest), dict(told))
        return answer(answered, 202)

    def _checked(self, item: TaskItem) -> NewTask:
        """What could not be answered is refused now; raises NotFound or Invalid."""
        for agent in item.agent_ids():
            self._catalogue.model(item.model, self._catalogue.agent(agent))
        if item.callback_url is not None and self._callbacks.beginning(item.callback_url) is None:
            raise Invalid(errors=[{"field": "callback_url", "message": "is not among TASK_CALLBACK_URLS"}])
        return item.new()

    @answers(TasksPage, query=TasksQuery, tells=UNCACHED)
    async def list_tasks(self, call: Call[None]) -> Response:
        """List your tasks, the newest first, page by page; by status, or those of a batch."""
        query = fitted(TasksQuery, call.request.query_params)
        after = task_place(query.cursor)
        rows = await self._tasks.page(call.identity.user_id, query.status, query.batch, after, query.limit + 1)
        page: Page[Task] = Page.of(rows, query.limit, lambda task: Place(task.created_at, str(task.id)))
        return answer(TasksPage(tasks=[brief(task) for task in page.rows], next_cursor=page.next_cursor))

    @answers(TaskAnswer, segments=TaskPath, tells=UNCACHED, errors=(NotFound,))
    async def read(self, call: Call[None]) -> Response:
        """Read a task, and its result when it has one."""
        return answer(described(await self._tasks.read(call.identity.user_id, task_id(call))))

    @answers(TaskAnswer, segments=TaskPath, tells=UNCACHED, errors=(NotFound,))
    async def cancel(self, call: Call[None]) -> Response:
        """Cancel a task that waits or runs, its model call too; one that is over stays as it is."""
        return answer(described(await self._tasks.cancel(call.identity.user_id, task_id(call))))


def task_id(call: Call[None]) -> uuid.UUID:
    return fitted(TaskPath, call.request.path_params).task_id


def submitter(call: Call[Any]) -> Submitter:
    """With the trace of the request, so that the run's can link to it (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    inject(carrier)
    identity = call.identity
    return Submitter(identity.user_id, identity.key_hash, call.request_id, carrier.get("traceparent", ""))


def answer(content: Mapping[str, Any], status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(to_json(content), status, headers=headers, media_type="application/json")
