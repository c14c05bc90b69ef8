"""Tasks at the edges: due all at once, of the blocked, of runs that were taken for dead, asked for in odd ways."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from procrastinate.job_context import JobContext
from procrastinate.worker import Worker as Engine

from service.db.pool import one_connection
from service.tasks import engine, upkeep_store
from service.tasks.runs import Runs
from service.tasks.worker import Worker
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, TASKS, one, submit, until
from tests.tasks.test_worker_processes import until as all_are
from tests.tasks.workers import upkeep, working
from tests.upstream import Upstream
from tests.waiting import eventually

FAR = """
UPDATE tasks SET status = 'done', finished_at = now(), callback_status = 'pending', callback_turn = 2147483000
WHERE id = %s"""


async def test_a_thousand_tasks_due_at_once_let_anothers_one_pass(node: RunningNode) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    await submit(node, {"tasks": [{**ONE, "not_before": soon}] * 1000})
    async with upkeep(node.settings, kept_s=60) as work:

        async def all_begun() -> bool:
            await work.begin_due()
            return await node.rows("SELECT count(*)::int FROM procrastinate_jobs") == [(1000,)]

        for _ in range(40):
            if await all_begun():
                break
            await asyncio.sleep(0.1)
    await node.new_user("lone")
    await submit(node, ONE, **{"x-api-key": await node.new_key("chat", user="lone")})
    jobs = await node.rows("SELECT priority FROM procrastinate_jobs ORDER BY id")
    lone = jobs[-1]
    assert sum(job >= lone for job in jobs) == 2  # the first of the thousand, and itself


async def test_a_users_high_tasks_do_not_starve_anothers_single_low_one(
    node: RunningNode, model_server: Upstream
) -> None:
    high = {**ONE, "model": "slow", "priority": "high"}
    await submit(node, {"tasks": [high | {"task": f"high {number}"} for number in range(200)]})
    await node.new_user("lone")
    key = {"x-api-key": await node.new_key("chat", user="lone")}
    async with working(node.settings, 2):
        await eventually(lambda: len(model_server.bodies) >= 4)
        (lone,) = (await submit(node, {**ONE, "task": "alone", "priority": "low"}, **key)).json()["ids"]
        asked = len(model_server.bodies)
        await eventually(lambda: "alone" in str(model_server.bodies))
        place = next(number for number, body in enumerate(model_server.bodies) if "alone" in str(body))
        assert place - asked <= 2  # so many had a place already

        async def done() -> bool:
            return bool((await node.http.get(f"{TASKS}/{lone}", headers=key)).json()["status"] == "done")

        await eventually(done)
        low = {**ONE, "model": "slow", "priority": "low"}
        await submit(node, {"tasks": [low | {"task": f"low {number}"} for number in range(3)]}, **key)
        # His second and third come before the other's hundredth, whatever their priorities.
        await eventually(lambda: "low 2" in str(model_server.bodies), 10)
        words = [body["messages"][-1]["content"] for body in model_server.bodies]
        first, last = words.index("low 0"), words.index("low 2")
        assert sum(word.startswith("high") for word in words[first:last]) <= 2 + 1
    assert await node.rows("SELECT count(*) > 150 FROM tasks WHERE status = 'queued'") == [(True,)]


async def test_the_tasks_of_a_blocked_user_fail_and_no_model_is_asked(
    node: RunningNode, model_server: Upstream
) -> None:
    await node.new_user("bad")
    key = await node.new_key("chat", user="bad")
    await submit(node, {"tasks": [ONE] * 3}, **{"x-api-key": key})
    ((user_id,),) = await node.rows("SELECT DISTINCT user_id FROM tasks")
    blocked = await node.http.post("/api/admin/blocks", json={"kind": "user", "subject": user_id, "for_s": 600})
    assert blocked.status_code < 300, blocked.text
    asked = len(model_server.bodies)
    async with working(node.settings):
        await all_are(node, {"failed": 3})
    assert await node.rows("SELECT DISTINCT error ->> 'type' FROM tasks") == [("urn:atp:problem:blocked",)]
    assert len(model_server.bodies) == asked


async def test_a_run_whose_job_was_given_to_another_begins_nothing(
    node: RunningNode, model_server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a worker that froze when it had taken the job, and goes on when another has the task."""
    real, run, held, go, became = Runs.run, Worker._run, list[int](), asyncio.Event(), list[str]()

    async def first_waits(self: Worker, context: JobContext, task_id: str) -> None:
        assert context.job.id
        if not held:
            held.append(context.job.id)
            await go.wait()
        await run(self, context, task_id)

    async def told(self: Runs, *given: Any) -> str:
        outcome = await real(self, *given)
        became.append(outcome)
        return outcome

    monkeypatch.setattr(Worker, "_run", first_waits)
    monkeypatch.setattr(Runs, "run", told)
    async with working(node.settings, 2):
        task_id = await one(node, model="slow")
        await eventually(lambda: held)
        async with one_connection(node.dsn) as connection:
            await connection.execute("DELETE FROM procrastinate_jobs WHERE id = %s", (held[0],))
            assert await upkeep_store.insert_jobs(connection, [UUID(task_id)]) == [UUID(task_id)]
        await eventually(lambda: model_server.open == 1)
        monkeypatch.setattr(engine, "FRESH_S", 0.0)
        go.set()
        await eventually(lambda: became == ["gone"])
        assert model_server.open == 1
        await until(node, task_id, "done")
    # Once where the task came while its job was taken: the engine's function sees what its statement does not yet, and
    # the run that waits was to begin it.
    assert await node.rows("SELECT attempt::int FROM tasks") in ([(1,)], [(2,)])
    assert len(model_server.bodies) == 1


async def test_a_task_whose_taking_took_long_is_begun_a_second_time_and_counts_one_try(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FRESH_S", 0.0)
    async with working(node.settings):
        task_id = await one(node)
        assert (await until(node, task_id, "done"))["attempts"] == 1


async def test_a_task_that_comes_while_a_worker_asks_for_work_does_not_wait_for_its_next_look(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice comes after PostgreSQL has looked, and before its answer is read."""
    monkeypatch.setattr("service.tasks.worker.LOOK_EVERY_S", 60.0)
    asks, hears, heard, made = engine.Jobs.fetch_job, Engine._handle_notification, list[int](), list[str]()

    async def asked(self: engine.Jobs, **given: Any) -> Any:
        found = await asks(self, **given)
        if found is None and heard and not made:  # it listens, and has nothing to do
            before = len(heard)
            made.append(await one(node, task="meanwhile"))
            await eventually(lambda: len(heard) > before)
        return found

    async def hearing(self: Engine, **given: Any) -> None:
        heard.append(1)
        await hears(self, **given)

    monkeypatch.setattr(engine.Jobs, "fetch_job", asked)
    monkeypatch.setattr(Engine, "_handle_notification", hearing)
    async with working(node.settings, 4, "chat"):
        await listening(node)
        await one(node)
        await eventually(lambda: made)
        await until(node, made[0], "done", within_s=5)


async def listening(node: RunningNode) -> None:
    async def heard() -> bool:
        query = "SELECT FROM pg_stat_activity WHERE query LIKE '%LISTEN%' AND datname = current_database()"
        return bool(await node.rows(query + " AND pid <> pg_backend_pid()"))

    await eventually(heard)


async def test_a_job_that_was_given_back_outlives_the_run_that_lost_it(
    node: RunningNode, model_server: Upstream
) -> None:
    """As after a PostgreSQL that came back from an older state: the job waits again, and so does its task."""
    async with working(node.settings, 1):
        task_id = await one(node, model="slow")
        await eventually(lambda: model_server.open == 1)
        async with one_connection(node.dsn) as connection:
            await connection.execute("UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL")
            await connection.execute(
                "UPDATE tasks SET status = 'queued', attempt = 0, job_id = NULL, started_at = NULL"
            )
        await until(node, task_id, "done")
    assert await node.rows("SELECT attempt::int FROM tasks") == [(1,)]
    assert await node.rows("SELECT FROM procrastinate_jobs") == []


async def test_a_text_about_nul_is_taken_and_a_nul_is_not(node: RunningNode) -> None:
    about = await node.http.post(TASKS, json={**ONE, "task": r"What does \u0000 mean?"})
    with_it = await node.http.post(TASKS, json={**ONE, "task": "a\0b"})
    behind = await node.http.post(TASKS, json={**ONE, "task": "a\\\0b"})
    assert (about.status_code, with_it.status_code, behind.status_code) == (202, 422, 422)


@pytest.mark.parametrize("path", [TASKS, "/api/admin/tasks"])
async def test_a_cursor_of_another_kind_is_refused(node: RunningNode, path: str) -> None:
    refused = await node.http.get(path, params={"cursor": "123-abc"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "cursor")


async def test_a_callback_at_the_end_of_turns_does_not_keep_others_from_ending(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    url = "http://127.0.0.1:9/x"
    settings = node_settings(database_url, redis_url, model_server, task_callback_urls=["http://127.0.0.1:9/"])
    async with running(settings) as node:
        far, near = [await one(node, callback_url=url) for _ in range(2)]
        async with one_connection(node.dsn) as connection:
            await connection.execute(FAR, (far,))
        cancelled = await node.http.delete(f"{TASKS}/{near}")
        assert cancelled.status_code == 200
        assert await node.rows("SELECT callback_turn FROM tasks WHERE status = 'cancelled'") == [(2147483647,)]


async def test_too_many_open_tasks_are_told_to_come_back(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, redis_url, model_server, tasks_per_user=1)) as node:
        await one(node)
        refused = await node.http.post(TASKS, json=ONE)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")


async def test_a_worker_in_a_node_that_fails_for_a_reason_nobody_foresaw_is_counted_and_begun_anew(
    database_url: str, redis_url: str, model_server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, began = Worker.serve, list[int]()

    async def fails_once(self: Worker) -> None:
        began.append(1)
        if len(began) == 1:
            raise RuntimeError("unforeseen")
        await real(self)

    monkeypatch.setattr(Worker, "serve", fails_once)
    async with running(node_settings(database_url, redis_url, model_server, node_tasks=1)) as node:
        await until(node, await one(node), "done")
        assert 'atp_unhandled_exceptions_total{component="task"} 1.0' in (await node.private.get("/metrics")).text
