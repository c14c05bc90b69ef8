"""Workers as processes: killed, frozen, stopped, without their database; nothing that was acknowledged is lost."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.embedded.folder import StateFolder
from tests.nodes import RunningNode, node_settings, running
from tests.ports import reserved_port
from tests.servers import OwnPostgres
from tests.tasks.workers import WorkerProcess
from tests.upstream import SCRIPTS, Upstream
from tests.waiting import eventually

TASKS = "/api/v1/tasks"
DEAD_AFTER_S = 2.0
# A worker that dies leaves its lead on the answer in Redis, where it lasts 10 s: without Redis the tests are faster.
ALONE = {"redis_url": ""}
Make = Callable[..., Awaitable[WorkerProcess]]


@asynccontextmanager
async def crew(node: RunningNode, model_server: Upstream, folder: Path) -> AsyncIterator[Make]:
    """Makes workers of this node's database; whatever still runs at the end is killed."""
    provider = {"base_url": model_server.base_url, "models": {name: {} for name in SCRIPTS}}
    shared = {
        "database_url": node.dsn,
        "redis_url": node.settings.redis_url.get_secret_value(),
        "providers": json.dumps({"scripted": provider}),
        "worker_dead_after": DEAD_AFTER_S,
        "task_backoff": 0.2,
        "worker_concurrency": 4,
    }
    state, made = StateFolder.open(folder), []
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> WorkerProcess:
            worker = WorkerProcess(
                state, f"worker-{len(made)}", stack.enter_context(reserved_port()), **shared | settings
            )
            made.append(worker)
            await worker.start()
            stack.push_async_callback(worker.kill)
            return worker

        yield make


@pytest.fixture
async def workers(node: RunningNode, model_server: Upstream, tmp_path: Path) -> AsyncIterator[Make]:
    async with crew(node, model_server, tmp_path) as make:
        yield make


async def submit(node: RunningNode, number: int, word: str = "", key: str = "", **changes: Any) -> list[str]:
    """Acknowledged tasks, each with a text of its own, so that none is answered from the cache."""
    tasks = [{"agent": "reasoning", "model": "good", "task": f"{word} {n}"} | changes for n in range(number)]
    headers = {"x-api-key": key} if key else {}
    response = await node.http.post(TASKS, json={"tasks": tasks}, headers=headers)
    assert response.status_code == 202, response.text
    return list(response.json()["ids"])


async def states(node: RunningNode) -> dict[str, int]:
    return dict(await node.rows("SELECT status, count(*)::int FROM tasks GROUP BY status"))


async def until(node: RunningNode, wanted: dict[str, int], within_s: float = 20.0) -> float:
    async def reached() -> bool:
        return await states(node) == wanted

    try:
        return await eventually(reached, within_s)
    except AssertionError:
        raise AssertionError(f"{await states(node)} and not {wanted}") from None


async def test_workers_killed_under_load_lose_no_task_and_each_is_done_once_in_effect(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    acknowledged = await submit(node, 60, model="slow") + await submit(node, 100, "quick", priority="low")
    steady, victim = await workers(**ALONE), await workers(**ALONE)
    for so_many in (30, 60, 90):
        await eventually(lambda so_many=so_many: len(model_server.bodies) >= so_many, 20)  # type: ignore[misc]
        await victim.kill()
        victim = await workers(**ALONE)
    await until(node, {"done": 160})
    finished = await node.rows("SELECT id::text FROM tasks WHERE status = 'done' AND result IS NOT NULL")
    assert sorted(row[0] for row in finished) == sorted(acknowledged)
    runs = len(model_server.bodies)
    print(f"160 tasks, 3 kills: {runs} model calls")
    assert 160 <= runs <= 160 + 3 * 4  # each killed worker had 4 at the most
    assert await node.rows("SELECT count(*)::int FROM procrastinate_jobs") == [(0,)]
    assert '"exception"' not in steady.log()


async def test_a_dead_workers_task_is_begun_again_by_another_within_seconds(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    victim, other = await workers(**ALONE), await workers(**ALONE, worker_concurrency=1)
    await submit(node, 6, model="silent")
    await eventually(lambda: model_server.open == 5)
    running = await node.rows("SELECT id::text FROM tasks WHERE status = 'running'")
    await victim.kill()
    third = await workers(**ALONE, worker_concurrency=5)
    await eventually(lambda: model_server.open == 6, DEAD_AFTER_S * 2)
    again = await node.rows("SELECT id::text FROM tasks WHERE attempt = 2")
    assert len(again) == 4
    assert set(again) < set(running)
    assert 'atp_tasks_total{outcome="recovered",task="chat"} 4.0' in await metrics(other) + await metrics(third)


async def test_a_worker_that_was_only_frozen_changes_nothing_of_what_another_did(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    frozen = await workers(**ALONE)
    (task_id,) = await submit(node, 1, model="slow")
    await eventually(lambda: model_server.open == 1)
    frozen.freeze()
    await workers(**ALONE)
    await until(node, {"done": 1})
    before = (await node.http.get(f"{TASKS}/{task_id}")).json()
    assert before["attempts"] == 2
    frozen.thaw()
    await submit(node, 20)
    await until(node, {"done": 21})
    assert (await node.http.get(f"{TASKS}/{task_id}")).json() == before
    assert await frozen.terminate() == 0


async def test_a_stopped_worker_ends_what_it_can_and_gives_back_the_rest(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    stopped = await workers(worker_drain=1.5)
    (stuck,) = await submit(node, 1, model="silent")
    await eventually(lambda: model_server.open == 1)
    await submit(node, 1, model="slow")  # last: it is over half a second after a worker finds it
    await eventually(lambda: model_server.open == 2)
    assert await asyncio.wait_for(stopped.terminate(), 1.5 + 3) == 0
    assert await states(node) == {"done": 1, "queued": 1}
    assert await node.rows("SELECT attempt, status FROM tasks WHERE status = 'queued'") == [(0, "queued")]
    await workers()
    await eventually(lambda: model_server.open == 1)  # at once: nobody has to be taken for dead
    await node.http.delete(f"{TASKS}/{stuck}")
    await until(node, {"done": 1, "cancelled": 1})
    await eventually(lambda: model_server.open == 0)


async def test_while_a_worker_drains_its_tasks_are_not_taken_for_lost(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    stopped = await workers(worker_drain=2 * DEAD_AFTER_S)
    await submit(node, 1, model="silent")
    await eventually(lambda: model_server.open == 1)
    await workers()
    assert await stopped.terminate() == 0  # after WORKER_DRAIN
    await eventually(lambda: len(model_server.bodies) == 2)
    assert await node.rows("SELECT attempt, status FROM tasks") == [(1, "running")]


async def test_a_task_that_kills_its_workers_is_given_up(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    (poison,) = await submit(node, 1, model="silent")
    for tries in (1, 2):
        victim = await workers(**ALONE, task_tries=2)
        await eventually(lambda tries=tries: len(model_server.bodies) == tries, 3 * DEAD_AFTER_S)  # type: ignore[misc]
        await victim.kill()
    await workers(**ALONE, task_tries=2)
    await until(node, {"failed": 1})
    task = (await node.http.get(f"{TASKS}/{poison}")).json()
    assert (task["attempts"], task["error"]["title"]) == (3, "The task was begun too often without an end")
    assert len(model_server.bodies) == 2
    assert [task["id"] for task in (await node.http.get(TASKS, params={"status": "failed"})).json()["tasks"]] == [
        poison
    ]
    set_aside = (await node.http.get("/api/admin/tasks", params={"reason": "given-up"})).json()["tasks"]
    assert [task["id"] for task in set_aside] == [poison]


async def test_a_worker_whose_postgresql_dies_goes_on_when_it_is_back(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream, tmp_path: Path
) -> None:
    """Without a cache, so that each run of a task is a call of its model."""
    settings = node_settings(own_postgres.dsn, redis_url, model_server)
    async with running(settings) as node, crew(node, model_server, tmp_path) as workers:
        worker = await workers(**ALONE, cache_memory_bytes=1, worker_drain=2)
        acknowledged = await submit(node, 12, model="slow") + await submit(node, 88, "quick", priority="low")
        await eventually(lambda: len(model_server.bodies) >= 6 and model_server.open == 4)
        await own_postgres.kill()
        await eventually(lambda: "worker.database_lost" in worker.log(), 15)
        await own_postgres.restart()
        await until_up(node)
        await until(node, {"done": 100})
        runs = Counter(body["messages"][-1]["content"] for body in model_server.bodies)
        print(f"100 tasks, PostgreSQL killed once: {runs.total()} model calls")
        assert len(runs) == 100
        assert max(runs.values()) <= 2
        assert runs.total() <= 100 + 4  # so many ran when it died
        finished = await node.rows("SELECT id::text FROM tasks WHERE result IS NOT NULL")
        assert sorted(row[0] for row in finished) == sorted(acknowledged)
        # The end of a run that PostgreSQL committed as it died was not heard of, so not counted.
        assert 100 - 4 <= await counted(worker, 'atp_tasks_total{outcome="done",task="chat"}') <= 100
        await submit(node, 1, "afterwards")
        await until(node, {"done": 101})
        assert await worker.terminate() == 0


async def until_up(node: RunningNode) -> None:
    async def ready() -> bool:
        return (await node.private.get("/readyz")).status_code == 200

    await eventually(ready, 20)


async def test_one_users_thousands_do_not_starve_anothers_one(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    for _ in range(2):
        await submit(node, 1000, model="slow")
    await workers(worker_concurrency=2)
    await eventually(lambda: len(model_server.bodies) >= 4)
    await node.new_user("lone")
    key = await node.new_key("chat", user="lone")
    (task_id,) = await submit(node, 1, "lone", key)

    async def done() -> bool:
        task = (await node.http.get(f"{TASKS}/{task_id}", headers={"x-api-key": key})).json()
        return bool(task["status"] == "done")

    assert await eventually(done) < 0.5 + 1.0  # a slot is free when a slow one ends, after 0.5 s at the most


async def test_a_model_server_that_fails_twice_is_asked_again(
    node: RunningNode, model_server: Upstream, workers: Make
) -> None:
    model_server.to_fail = 2
    worker = await workers()
    await submit(node, 1, model="recovers")
    await until(node, {"done": 1})
    assert await node.rows("SELECT attempt FROM tasks") == [(3,)]
    assert len(model_server.bodies) == 3
    text = await metrics(worker)
    assert 'atp_tasks_total{outcome="retried",task="chat"} 2.0' in text
    assert 'atp_tasks_total{outcome="done",task="chat"} 1.0' in text
    assert 'atp_task_queue_wait_seconds_count{queue="chat"} 1.0' in text
    assert 'atp_task_duration_seconds_count{task="chat"} 1.0' in text


async def counted(worker: WorkerProcess, series: str) -> float:
    values = [line.split()[-1] for line in (await metrics(worker)).splitlines() if line.startswith(series + " ")]
    return float(values[0])


async def metrics(worker: WorkerProcess) -> str:
    async with httpx2.AsyncClient(verify=False, base_url=f"http://127.0.0.1:{worker.private_port}") as private:
        return (await private.get("/metrics")).text
