"""/api/v1/tasks: submitted once, run by a worker, read, listed and cancelled; one's own only."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from service.db.pool import one_connection
from service.keys import issuing
from tests.nodes import RunningNode, node_settings, running
from tests.tasks.workers import working
from tests.upstream import Upstream
from tests.waiting import eventually

TASKS = "/api/v1/tasks"
ONE = {"agent": "reasoning", "task": "What is the capital of France?", "model": "good"}


async def submit(node: RunningNode, body: dict[str, Any] = ONE, **headers: str) -> httpx2.Response:
    return await node.http.post(TASKS, json=body, headers=headers)


async def one(node: RunningNode, **changes: Any) -> str:
    """The id of a new task."""
    response = await submit(node, ONE | changes)
    assert response.status_code == 202, response.text
    (task_id,) = response.json()["ids"]
    return str(task_id)


async def read(node: RunningNode, task_id: str) -> dict[str, Any]:
    response = await node.http.get(f"{TASKS}/{task_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def until(node: RunningNode, task_id: str, status: str, within_s: float = 10) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def reached() -> bool:
        found.update(await read(node, task_id))
        return bool(found["status"] == status)

    await eventually(reached, within_s)
    return found


async def test_a_task_waits_until_a_worker_answers_it(node: RunningNode) -> None:
    task_id = await one(node)
    waiting = await read(node, task_id)
    assert (waiting["status"], waiting["attempts"], waiting["result"]) == ("queued", 0, None)
    assert waiting["request"] == {**ONE, "parameters": {}}
    async with working(node.settings):
        done = await until(node, task_id, "done")
    assert (done["attempts"], done["error"]) == (1, None)
    assert done["result"]["answer"] == "Paris is the capital."
    assert done["result"]["usage"] == {"input_tokens": 7, "output_tokens": 4, "estimated": False}
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    ((rows,),) = await node.rows("SELECT count(*) FROM procrastinate_jobs")
    assert rows == 0


async def test_a_task_leaves_a_usage_row_as_a_chat_does(node: RunningNode) -> None:
    task_id = await one(node)
    async with working(node.settings):
        await until(node, task_id, "done")
    rows = await node.rows("SELECT agent, model, tokens_in, tokens_out, status FROM api_usage")
    assert rows == [("reasoning", "good", 7, 4, 200)]


async def test_a_batch_is_taken_whole_and_listed_by_its_id(node: RunningNode) -> None:
    made = (await submit(node, {"tasks": [ONE | {"task": f"number {n}"} for n in range(1000)]})).json()
    assert (len(made["ids"]), len(set(made["ids"]))) == (1000, 1000)
    other = await one(node)
    page = (await node.http.get(TASKS, params={"batch": made["batch_id"], "limit": 100})).json()
    found = [task["id"] for task in page["tasks"]]
    while page["next_cursor"]:
        query = {"batch": made["batch_id"], "limit": 100, "cursor": page["next_cursor"]}
        page = (await node.http.get(TASKS, params=query)).json()
        found += [task["id"] for task in page["tasks"]]
    assert sorted(found) == sorted(made["ids"])
    assert other not in found


async def test_one_bad_task_of_a_batch_refuses_all(node: RunningNode) -> None:
    bad = {"tasks": [ONE, ONE | {"agent": "nobody"}]}
    assert (await submit(node, bad)).status_code == 404
    assert (await submit(node, {"tasks": [ONE, ONE | {"priority": "urgent"}]})).status_code == 422
    assert (await node.http.get(TASKS)).json()["tasks"] == []


async def test_the_same_idempotency_key_is_the_same_request(node: RunningNode) -> None:
    first = await submit(node, ONE, **{"idempotency-key": "monday"})
    again = await submit(node, dict(reversed(ONE.items())), **{"idempotency-key": "monday"})
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    other = await submit(node, ONE | {"task": "Another"}, **{"idempotency-key": "monday"})
    assert other.status_code == 422
    assert len((await node.http.get(TASKS)).json()["tasks"]) == 1


async def test_of_many_at_once_with_one_key_exactly_one_makes_a_task(node: RunningNode) -> None:
    answers = await asyncio.gather(*(submit(node, ONE, **{"idempotency-key": "rush"}) for _ in range(20)))
    taken = [answer.json()["ids"] for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert all(answer.status_code == 409 and "retry-after" in answer.headers for answer in refused)
    assert taken
    assert all(ids == taken[0] for ids in taken)
    assert len((await node.http.get(TASKS)).json()["tasks"]) == 1


async def test_a_waiting_task_is_cancelled_and_never_run(node: RunningNode, model_server: Upstream) -> None:
    task_id = await one(node)
    cancelled = (await node.http.delete(f"{TASKS}/{task_id}")).json()
    assert (cancelled["status"], cancelled["attempts"]) == ("cancelled", 0)
    asked = len(model_server.bodies)
    later = await one(node, task="Another")
    async with working(node.settings):
        await until(node, later, "done")
    assert len(model_server.bodies) == asked + 1
    assert (await read(node, task_id))["status"] == "cancelled"


async def test_a_running_task_is_cancelled_with_its_model_call(node: RunningNode, model_server: Upstream) -> None:
    task_id = await one(node, model="silent")
    async with working(node.settings):
        await until(node, task_id, "running")
        await eventually(lambda: model_server.open == 1)
        cancelled = (await node.http.delete(f"{TASKS}/{task_id}")).json()
        assert cancelled["status"] == "cancelled"
        await eventually(lambda: model_server.open == 0)
        assert (await read(node, task_id))["status"] == "cancelled"
        await eventually(lambda: no_jobs(node))


async def no_jobs(node: RunningNode) -> bool:
    """Whether the engine has forgotten them all."""
    return bool(await node.rows("SELECT count(*)::int FROM procrastinate_jobs") == [(0,)])


async def test_what_is_over_stays_as_it_is_when_it_is_cancelled(node: RunningNode) -> None:
    task_id = await one(node)
    async with working(node.settings):
        await until(node, task_id, "done")
    assert (await node.http.delete(f"{TASKS}/{task_id}")).json()["status"] == "done"


async def test_a_task_of_somebody_else_is_not_there(node: RunningNode) -> None:
    task_id = await one(node)
    await node.new_user("mallory")
    mallory = {"x-api-key": await node.new_key("chat", user="mallory")}
    for method in ("GET", "DELETE"):
        assert (await node.http.request(method, f"{TASKS}/{task_id}", headers=mallory)).status_code == 404
    assert (await node.http.get(TASKS, headers=mallory)).json()["tasks"] == []
    assert (await read(node, task_id))["status"] == "queued"


async def test_a_model_that_refuses_fails_the_task_with_its_problem(node: RunningNode) -> None:
    task_id = await one(node, model="garbage")
    settings = node.settings.model_copy(update={"task_tries": 1})
    async with working(settings):
        failed = await until(node, task_id, "failed")
    assert (failed["error"]["status"], failed["result"]) == (502, None)
    assert failed["error"]["type"].endswith("upstream-error")


async def test_what_a_model_server_will_never_understand_is_asked_once(
    node: RunningNode, model_server: Upstream
) -> None:
    task_id = await one(node, model="too-long")
    async with working(node.settings):
        failed = await until(node, task_id, "failed")
    assert (failed["attempts"], failed["error"]["upstream_status"]) == (1, 400)
    assert len(model_server.bodies) == 1


async def test_a_task_whose_key_was_revoked_before_its_turn_is_failed_and_no_model_asked(
    node: RunningNode, model_server: Upstream
) -> None:
    async with one_connection(node.dsn) as connection:
        key = await issuing.create_key(connection, "tester", "test", ("chat",))
    task_id = (await submit(node, ONE, **{"x-api-key": key.text})).json()["ids"][0]
    async with one_connection(node.dsn) as connection:
        await issuing.revoke_key(connection, key.prefix)
    async with working(node.settings):
        failed = await until(node, task_id, "failed")
    assert (failed["attempts"], failed["error"]["status"]) == (1, 401)
    assert model_server.bodies == []


async def test_after_its_deadline_a_task_is_failed_and_not_run(node: RunningNode, model_server: Upstream) -> None:
    task_id = await one(node, deadline=(datetime.now(UTC) + timedelta(seconds=0.2)).isoformat())
    await asyncio.sleep(0.3)  # what is measured is that it is late
    asked = len(model_server.bodies)
    async with working(node.settings):
        failed = await until(node, task_id, "failed")
    assert failed["error"]["title"] == "The task's deadline has passed"
    assert len(model_server.bodies) == asked


async def test_a_user_has_at_most_so_many_tasks_open(node: RunningNode) -> None:
    assert node.settings.tasks_per_user == 10_000
    for _ in range(10):
        assert (await submit(node, {"tasks": [ONE] * 1000})).status_code == 202
    assert (await submit(node)).status_code == 429


async def test_a_node_by_itself_runs_tasks_where_it_is_told_to(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, node_tasks=2, worker_drain=0.1)
    async with running(settings) as node:
        await until(node, await one(node), "done")
        waiting = await one(node, model="silent")
        await until(node, waiting, "running")
        assert await node.metric('atp_tasks_total{outcome="done",task="chat"}') == 1
    async with one_connection(database_url) as connection:
        rows = await (await connection.execute("SELECT status, attempt FROM tasks ORDER BY status")).fetchall()
    assert rows == [("done", 1), ("queued", 0)]


async def test_a_callback_goes_only_where_the_settings_say(node: RunningNode) -> None:
    refused = await submit(node, ONE | {"callback_url": "http://169.254.169.254/latest"})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "callback_url", "message": "is not among TASK_CALLBACK_URLS"}]
