"""/api/admin/tasks: what failed and why, what waits, and a second chance; never what a task is about."""

from uuid import UUID

import pytest

from service.db.pool import one_connection
from tests.nodes import RunningNode
from tests.routes.test_tasks import one, read, until
from tests.tasks.workers import working

TASKS = "/api/admin/tasks"
END = "UPDATE tasks SET status = %s, finished_at = now(), attempt = 5, error = %s::jsonb WHERE id = %s"


async def end(node: RunningNode, task_id: str, code: str = "given-up", status: str = "failed") -> None:
    """As a run would that ends it; its job goes too."""
    error = f'{{"type": "urn:atp:problem:{code}", "detail": "-"}}' if status == "failed" else None
    async with one_connection(node.dsn) as connection:
        await connection.execute(END, (status, error, task_id))
        await connection.execute("DELETE FROM procrastinate_jobs WHERE queueing_lock = %s", (task_id,))


async def put(node: RunningNode, change: str, task_id: str) -> None:
    async with one_connection(node.dsn) as connection:
        await connection.execute(f"UPDATE tasks SET {change} WHERE id = %s".encode(), (task_id,))  # noqa: S608


async def listed(node: RunningNode, **query: str) -> list[str]:
    response = await node.http.get(TASKS, params=query)
    assert response.status_code == 200, response.text
    return [task["id"] for task in response.json()["tasks"]]


async def ana(node: RunningNode) -> tuple[str, dict[str, str]]:
    """A user's id, and the headers of a key of hers."""
    return await node.new_user("ana"), {"x-api-key": await node.new_key("chat", user="ana")}


async def test_what_was_set_aside_is_listed_with_whose_it_is_and_why(node: RunningNode) -> None:
    user_id, headers = await ana(node)
    body = {"agent": "reasoning", "task": "a private question", "model": "good"}
    made = await node.http.post("/api/v1/tasks", json=body, headers=headers | {"x-request-id": "made-by-this"})
    (task_id,) = made.json()["ids"]
    await end(node, task_id)
    response = await node.http.get(TASKS, params={"reason": "given-up"})
    (task,) = response.json()["tasks"]
    assert {name: task[name] for name in ("id", "status", "attempts", "user_id", "request_id", "reason")} == {
        "id": task_id,
        "status": "failed",
        "attempts": 5,
        "user_id": user_id,
        "request_id": "made-by-this",
        "reason": "given-up",
    }
    assert "private" not in response.text


async def test_the_list_is_of_what_failed_by_reason_and_user_the_newest_first(node: RunningNode) -> None:
    _, headers = await ana(node)
    first, second, other, done, _ = [await one(node, task=f"number {n}") for n in range(5)]
    theirs = (await node.http.post("/api/v1/tasks", json={"agent": "reasoning", "task": "x"}, headers=headers)).json()
    for task_id in (first, second, *theirs["ids"]):
        await end(node, task_id)
    await end(node, other, code="upstream-error")
    await end(node, done, status="done")
    assert await listed(node) == [*theirs["ids"], other, second, first]
    assert await listed(node, reason="given-up") == [*theirs["ids"], second, first]
    user_id = (await node.http.get(TASKS)).json()["tasks"][1]["user_id"]
    assert await listed(node, reason="given-up", user=user_id) == [second, first]
    assert await listed(node, reason="no-such-problem") == []


async def test_pages_follow_one_another(node: RunningNode) -> None:
    made = [await one(node, task=f"number {n}") for n in range(3)]
    for task_id in made:
        await end(node, task_id)
    page = (await node.http.get(TASKS, params={"limit": 2})).json()
    assert [task["id"] for task in page["tasks"]] == [made[2], made[1]]
    assert await listed(node, cursor=page["next_cursor"]) == [made[0]]


@pytest.mark.parametrize("query", ["status=queued", "reason=Given%20Up", "reason=", "user=", "cursor=x", "limit=0"])
async def test_what_cannot_be_asked_is_422(node: RunningNode, query: str) -> None:
    assert (await node.http.get(f"{TASKS}?{query}")).status_code == 422


async def test_a_failed_task_that_is_tried_again_is_done_and_the_deed_audited(node: RunningNode) -> None:
    task_id = await one(node)
    await end(node, task_id)
    await put(node, "created_at = now() - interval '1 day'", task_id)
    response = await node.http.post(f"{TASKS}/{task_id}/retry")
    answer = response.json()
    assert response.status_code == 202
    assert (answer["task"]["status"], answer["task"]["attempts"]) == ("queued", 0)
    assert await node.rows("SELECT id, action, target, details FROM admin_audit") == [
        (UUID(answer["id"]), "retry_task", task_id, {})
    ]
    assert (await read(node, task_id))["error"] is None
    assert (await node.http.get("/api/admin/stats/tasks")).json()["oldest_age_s"] < 10  # it waits from now on
    async with working(node.settings):
        assert (await until(node, task_id, "done"))["attempts"] == 1


async def test_only_a_failed_task_is_tried_again_and_only_before_its_deadline(node: RunningNode) -> None:
    waiting, late = await one(node), await one(node)
    await end(node, late)
    await put(node, "deadline = now() - interval '1 s'", late)
    for task_id, status, detail in (
        (waiting, "queued", "Only a task that failed can be tried again."),
        (late, "failed", "Its deadline has passed."),
    ):
        refused = await node.http.post(f"{TASKS}/{task_id}/retry")
        said = refused.json()
        assert (refused.status_code, said["status"], said["detail"]) == (409, 409, detail)
        assert said["task_status"] == status
    nobodys = await node.http.post(f"{TASKS}/00000000-0000-4000-8000-000000000000/retry")
    assert nobodys.status_code == 404
    assert await node.rows("SELECT id FROM admin_audit") == []
    assert await node.rows("SELECT count(*)::int FROM procrastinate_jobs") == [(1,)]


async def test_the_queue_is_counted_by_what_could_start_now_what_later_and_what_runs(node: RunningNode) -> None:
    empty = {"ready": 0, "scheduled": 0, "running": 0, "oldest_age_s": 0.0, "callbacks": 0}
    assert (await node.http.get("/api/admin/stats/tasks")).json() == empty
    old, running, late, _ = [await one(node, task=f"number {n}") for n in range(4)]
    await put(node, "created_at = now() - interval '90 s'", old)
    await put(node, "status = 'running'", running)
    await put(node, "not_before = now() + interval '1 h'", late)
    counted = (await node.http.get("/api/admin/stats/tasks")).json()
    assert 90 <= counted.pop("oldest_age_s") < 120
    assert counted == {"ready": 2, "scheduled": 1, "running": 1, "callbacks": 0}


async def test_callbacks_are_counted_until_their_receivers_took_or_refused_them(node: RunningNode) -> None:
    states = ("pending", "pending", "delivered", "failed")
    for number, state in enumerate(states):
        task_id = await one(node, task=f"number {number}")
        await end(node, task_id)
        await put(node, f"callback_status = '{state}'", task_id)
    again = await one(node)
    await put(node, "callback_status = 'pending'", again)  # of its last end: it was put into the queue again
    counted = (await node.http.get("/api/admin/stats/tasks")).json()
    assert (counted["callbacks"], counted["ready"]) == (2, 1)
