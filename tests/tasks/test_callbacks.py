"""Callbacks: who gave a URL with a task is told once it is over, whatever happens to workers and receivers."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import from_json

from service.db.pool import one_connection
from service.settings import Settings
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, no_jobs, one, read, submit, until
from tests.tasks.receiver import Receiver, receiving
from tests.tasks.test_worker_processes import Make, crew
from tests.tasks.workers import WorkerProcess, upkeep, working
from tests.upstream import Upstream
from tests.waiting import eventually

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


@pytest.fixture
async def node(
    database_url: str, redis_url: str, model_server: Upstream, receiver: Receiver
) -> AsyncIterator[RunningNode]:
    """A node whose workers may call the receiver, and give it half a second."""
    terms = {
        "task_callback_urls": [receiver.beginning],
        "task_callback_secret": SECRET,
        "task_callback_timeout": 0.5,
        "task_callback_backoff": 0.1,
        "task_tries": 1,
    }
    async with running(node_settings(database_url, redis_url, model_server, **terms)) as started:
        yield started


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


async def called(node: RunningNode, task_id: str, status: str, within_s: float = 10) -> dict[str, Any]:
    """The task's `callback`, once it has this status."""
    found: dict[str, Any] = {}

    async def reached() -> bool:
        found.update((await read(node, task_id))["callback"])
        return bool(found["status"] == status)

    await eventually(reached, within_s)
    return found


def verified(raw: bytes, headers: dict[str, str]) -> bool:
    """As docs/tasks.md tells receivers."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
    right = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    fresh = abs(datetime.now(UTC).timestamp() - int(headers["webhook-timestamp"])) < 300
    return fresh and any(hmac.compare_digest(right, told) for told in headers["webhook-signature"].split(" "))


async def test_a_task_that_is_done_is_told_once_and_signed(node: RunningNode, receiver: Receiver) -> None:
    url = receiver.url("good?token=a%2Fb")
    task_id = await one(node, callback_url=url)
    assert (await read(node, task_id))["callback"] == {"url": url, "status": None, "attempts": 0}
    async with working(node.settings):
        assert await called(node, task_id, "delivered") == {"url": url, "status": "delivered", "attempts": 1}
        await eventually(lambda: no_jobs(node))
    (callback,) = receiver.taken
    assert callback.path == "/good?token=a%2Fb"
    assert verified(callback.raw, callback.headers)
    assert callback.headers["content-type"] == "application/json"
    page = (await node.http.get("/api/v1/tasks")).json()["tasks"]
    assert callback.told == {"type": "task.done", "timestamp": page[0]["finished_at"], "data": page[0]}


async def test_nothing_of_the_request_or_its_key_goes_to_the_receiver(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"), task="A secret question")
    async with working(node.settings):
        await called(node, task_id, "delivered")
    (callback,) = receiver.taken
    assert set(callback.headers) == {
        *("host", "user-agent", "accept", "accept-encoding", "content-type", "content-length"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert callback.headers["user-agent"] == "ATP"
    sent = str(callback.headers).encode() + callback.raw
    assert all(word not in sent for word in (b"secret question", b"Paris", node.key.encode(), b"tester"))


async def test_a_task_that_fails_is_told(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"), model="garbage")
    async with working(node.settings):
        await called(node, task_id, "delivered")
    assert [callback.told["type"] for callback in receiver.taken] == ["task.failed"]


async def test_a_task_that_was_too_late_is_told(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"), deadline=in_seconds(60))
    await node.rows("UPDATE tasks SET deadline = now() RETURNING id")
    async with working(node.settings):
        await called(node, task_id, "delivered")
    assert [callback.told["type"] for callback in receiver.taken] == ["task.failed"]


async def test_a_task_that_was_given_up_is_told(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"))
    await node.rows("UPDATE tasks SET attempt = 1 RETURNING id")  # as if its worker had died with it
    async with working(node.settings):
        await called(node, task_id, "delivered")
    assert (await read(node, task_id))["error"]["type"].endswith("given-up")
    assert [callback.told["type"] for callback in receiver.taken] == ["task.failed"]


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_task_that_is_cancelled_while_it_waits_or_runs_is_told(
    node: RunningNode, receiver: Receiver, model_server: Upstream
) -> None:
    waiting = await one(node, callback_url=receiver.url("good"), not_before=in_seconds(600))
    cancelled = (await node.http.delete(f"/api/v1/tasks/{waiting}")).json()
    assert cancelled["callback"] == {"url": receiver.url("good"), "status": "pending", "attempts": 0}
    async with working(node.settings):
        await called(node, waiting, "delivered")
        running = await one(node, callback_url=receiver.url("good"), model="silent")
        await eventually(lambda: model_server.open == 1)
        await node.http.delete(f"/api/v1/tasks/{running}")
        await called(node, running, "delivered")
        assert (await node.http.delete(f"/api/v1/tasks/{running}")).json()["callback"]["status"] == "delivered"
        await eventually(lambda: no_jobs(node))
    assert [(callback.told["type"], callback.told["data"]["id"]) for callback in receiver.taken] == [
        ("task.cancelled", waiting),
        ("task.cancelled", running),
    ]


async def test_a_task_without_a_callback_has_none(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node)
    async with working(node.settings):
        assert (await until(node, task_id, "done"))["callback"] is None
        await eventually(lambda: no_jobs(node))
    assert receiver.taken == []


@pytest.mark.parametrize("script", ["once-500", "once-slow", "once-307", "once-408"])
async def test_a_receiver_that_fails_once_is_told_again_with_the_same_id(
    node: RunningNode, receiver: Receiver, script: str
) -> None:
    task_id = await one(node, callback_url=receiver.url(script))
    async with working(node.settings) as worker:
        assert (await called(node, task_id, "delivered"))["attempts"] == 2
        first, second = receiver.taken  # both at the same path: a redirect is not followed
        sample = worker.metrics.registry.get_sample_value
        labels = [{"task": "callback", "outcome": outcome} for outcome in ("done", "retried", "failed")]
        assert [sample("atp_tasks_total", label) for label in labels] == [1, 1, 0]
        assert sample("atp_task_duration_seconds_count", {"task": "callback"}) == 2
    assert (first.path, first.raw, first.headers["webhook-id"]) == (
        second.path,
        second.raw,
        second.headers["webhook-id"],
    )
    assert verified(second.raw, second.headers)


@pytest.mark.parametrize("script", ["410", "404", "400"])
async def test_a_receiver_that_refuses_is_not_told_again(node: RunningNode, receiver: Receiver, script: str) -> None:
    task_id = await one(node, callback_url=receiver.url(script))
    async with working(node.settings):
        assert (await called(node, task_id, "failed"))["attempts"] == 1
        await eventually(lambda: no_jobs(node))
    assert len(receiver.taken) == 1
    assert (await read(node, task_id))["status"] == "done"


async def test_a_receiver_that_says_when_is_not_told_before(node: RunningNode, receiver: Receiver) -> None:
    await one(node, callback_url=receiver.url("429"))
    async with working(node.settings):
        await eventually(lambda: waiting_s(node, 1700, 1800))


async def waiting_s(node: RunningNode, least_s: float, most_s: float) -> bool:
    """Whether the next try of a callback is so far away."""
    sql = (
        "SELECT extract(epoch FROM scheduled_at - now())::float FROM procrastinate_jobs WHERE queue_name = 'callbacks'"
    )
    rows = await node.rows(f"{sql} AND status = 'todo'")
    return bool(rows) and rows[0][0] is not None and least_s < rows[0][0] <= most_s


async def test_waits_grow_to_an_hour_and_end_after_a_day(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("503"))
    await node.http.delete(f"/api/v1/tasks/{task_id}")
    await node.rows("UPDATE tasks SET callback_attempts = 32 RETURNING id")
    async with working(changed(node.settings, task_callback_backoff=5)):
        await eventually(lambda: waiting_s(node, 1790, 5400))
        await node.rows("UPDATE procrastinate_jobs SET scheduled_at = now() RETURNING id")
        assert (await called(node, task_id, "failed"))["attempts"] == 34
    assert len(receiver.taken) == 2


async def test_an_endless_answer_is_not_read(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("long"))
    async with working(node.settings):
        assert (await called(node, task_id, "delivered"))["attempts"] == 1


async def test_a_receiver_that_is_not_there_is_tried_again(node: RunningNode, receiver: Receiver) -> None:
    nobody = "http://127.0.0.1:9/"
    settings = changed(node.settings, task_callback_urls=[nobody, receiver.beginning])
    async with running(settings) as other, working(settings):
        task_id = await one(other, callback_url=nobody)

        async def tried() -> bool:
            return bool((await read(other, task_id))["callback"]["attempts"] >= 2)

        await eventually(tried)
        assert (await read(other, task_id))["callback"]["status"] == "pending"


async def test_what_is_not_allowed_any_more_is_not_called(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"))
    async with working(changed(node.settings, task_callback_urls=["https://other.example/"])):
        assert (await called(node, task_id, "failed"))["attempts"] == 1
    assert receiver.taken == []


async def test_without_a_secret_nothing_is_signed(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"))
    async with working(changed(node.settings, task_callback_secret=SecretStr(""))):
        await called(node, task_id, "delivered")
    assert "webhook-signature" not in receiver.taken[0].headers
    assert receiver.taken[0].headers["webhook-id"].startswith(f"{task_id}_")


async def test_a_proxy_of_the_environment_is_not_asked(
    node: RunningNode, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    task_id = await one(node, callback_url=receiver.url("good"))
    async with working(node.settings):
        assert (await called(node, task_id, "delivered"))["attempts"] == 1


async def test_receivers_that_hang_do_not_hold_up_tasks(
    node: RunningNode, receiver: Receiver, model_server: Upstream
) -> None:
    hanging = [ONE | {"task": f"hang {n}", "callback_url": receiver.url("slow")} for n in range(20)]
    async with working(changed(node.settings, task_callback_timeout=30, worker_drain=0.1), concurrency=2):
        await submit(node, {"tasks": hanging})
        await eventually(lambda: len(receiver.taken) == 8)  # as many as there are at a time
        quick = [await one(node, task=f"quick {n}") for n in range(10)]
        for task_id in quick:
            await until(node, task_id, "done", within_s=3)
        assert len(receiver.taken) == 8
    # The worker's end gave them back.
    rows = await node.rows("SELECT status::text, count(*)::int FROM procrastinate_jobs GROUP BY status")
    assert rows == [("todo", 20)]


async def test_one_users_hanging_callbacks_let_anothers_pass(node: RunningNode, receiver: Receiver) -> None:
    await node.new_user("other")
    other = {"x-api-key": await node.new_key("chat", user="other")}
    hanging = [ONE | {"task": f"hang {n}", "callback_url": receiver.url("slow")} for n in range(40)]
    async with working(node.settings, concurrency=8):
        await submit(node, {"tasks": hanging})
        await eventually(lambda: len(receiver.taken) >= 9)  # a place is free every half second at the latest
        before = len(receiver.taken)
        made = await submit(node, ONE | {"callback_url": receiver.url("good")}, **other)
        path = f"/api/v1/tasks/{made.json()['ids'][0]}"

        async def told() -> bool:
            return bool((await node.http.get(path, headers=other)).json()["callback"]["status"] == "delivered")

        await eventually(told)
        place = [callback.path for callback in receiver.taken].index("/good")
        assert place - before < 20  # the forty take turns of eight, and come again: it would be behind all of them
        assert (await node.http.get(path)).status_code == 404  # it is not the first user's


async def test_a_callback_whose_task_was_deleted_ends(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"))
    await node.http.delete(f"/api/v1/tasks/{task_id}")
    await node.rows("DELETE FROM tasks RETURNING id")
    async with working(node.settings):
        await eventually(lambda: no_jobs(node))
    assert receiver.taken == []


async def test_a_dead_workers_callback_is_given_back_and_one_without_a_job_gets_one(
    node: RunningNode, receiver: Receiver
) -> None:
    dead, lost, told = [await one(node, callback_url=receiver.url("good")) for _ in range(3)]
    for task_id in (dead, lost, told):
        await node.http.delete(f"/api/v1/tasks/{task_id}")
    async with one_connection(node.dsn) as connection:
        doing = "UPDATE procrastinate_jobs SET status = 'doing' WHERE args ->> 'task_id' = ANY (%s)"
        await connection.execute(doing, [[dead, told]])  # by a worker that is forgotten
        await connection.execute("DELETE FROM procrastinate_jobs WHERE args ->> 'task_id' = %s", [lost])
        await connection.execute("UPDATE tasks SET callback_status = 'delivered' WHERE id = %s", [told])
    jobs = "SELECT args ->> 'task_id', status::text, queue_name, task_name FROM procrastinate_jobs ORDER BY id"
    async with upkeep(node.settings, kept_s=600) as work:
        await work.give_back()
        assert await node.rows(jobs) == [(dead, "todo", "callbacks", "run_callback")]
        for _ in range(2):
            await work.clean_once()
            assert [row[0] for row in await node.rows(jobs)] == [dead, lost]
    async with working(node.settings):
        await called(node, dead, "delivered")
        await called(node, lost, "delivered")


async def test_a_task_that_is_begun_again_and_ends_anew_is_told_again(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("once-500"), model="garbage")
    begin_again = "UPDATE tasks SET status = 'queued', attempt = 0, finished_at = NULL, error = NULL RETURNING id"
    async with working(changed(node.settings, task_callback_backoff=600)):
        await eventually(lambda: waiting_s(node, 200, 900))  # of the first end
    await node.rows(begin_again)
    assert (await read(node, task_id))["callback"] == {"url": receiver.url("once-500"), "status": None, "attempts": 0}
    async with upkeep(node.settings, kept_s=600) as work:
        await work.clean_once()  # it gives the task a job, and no second one to its callback
    assert await node.rows("SELECT queue_name FROM procrastinate_jobs ORDER BY id") == [("callbacks",), ("chat",)]
    async with working(node.settings):
        assert (await called(node, task_id, "delivered"))["attempts"] == 1
        await node.rows("UPDATE procrastinate_jobs SET scheduled_at = now() RETURNING id")
        await eventually(lambda: no_jobs(node))
    first, second = [callback.headers["webhook-id"] for callback in receiver.taken]
    assert first != second


async def test_a_node_that_runs_tasks_itself_calls_back_too(
    database_url: str, redis_url: str, model_server: Upstream, receiver: Receiver
) -> None:
    settings = node_settings(
        database_url, redis_url, model_server, node_tasks=1, task_callback_urls=[receiver.beginning]
    )
    async with running(settings) as node:
        await called(node, await one(node, callback_url=receiver.url("good")), "delivered")


async def test_a_worker_of_some_queues_leaves_the_others(node: RunningNode, receiver: Receiver) -> None:
    task_id = await one(node, callback_url=receiver.url("good"))
    async with working(node.settings, 4, "callbacks"):
        waiting = await one(node)
        await node.http.delete(f"/api/v1/tasks/{waiting}")
    assert (await read(node, task_id))["status"] == "queued"
    async with working(node.settings, 4, "chat"):
        await until(node, task_id, "done")
    assert (await read(node, task_id))["callback"] == {
        "url": receiver.url("good"),
        "status": "pending",
        "attempts": 0,
    }
    assert receiver.taken == []
    async with working(node.settings, 4, "callbacks"):
        await called(node, task_id, "delivered")


async def test_several_workers_tell_of_each_task_once(node: RunningNode, receiver: Receiver) -> None:
    tasks = [ONE | {"task": f"number {n}", "callback_url": receiver.url("good")} for n in range(60)]
    ids = (await submit(node, {"tasks": tasks})).json()["ids"]
    async with working(node.settings), working(node.settings):
        await eventually(lambda: no_jobs(node), 15)
    assert sorted(callback.told["data"]["id"] for callback in receiver.taken) == sorted(ids)
    assert await node.rows("SELECT callback_status, count(*)::int FROM tasks GROUP BY 1") == [("delivered", 60)]


@pytest.fixture
async def workers(node: RunningNode, receiver: Receiver, model_server: Upstream, tmp_path: Path) -> AsyncIterator[Make]:
    """Processes that may call the receiver; ALONE is theirs by default."""
    async with crew(node, model_server, tmp_path) as make:

        async def calling(**settings: Any) -> WorkerProcess:
            terms = {"task_callback_urls": receiver.beginning, "task_callback_secret": SECRET, "redis_url": ""}
            return await make(**terms | settings)

        yield calling


async def test_a_worker_killed_between_the_end_of_a_task_and_its_callback_loses_nothing(
    node: RunningNode, receiver: Receiver, workers: Make
) -> None:
    receiver.to_hang = 4
    victim = await workers()
    tasks = [ONE | {"task": f"number {n}", "callback_url": receiver.url("good")} for n in range(4)]
    ids = (await submit(node, {"tasks": tasks})).json()["ids"]
    await eventually(lambda: len(receiver.taken) == 4)
    await victim.kill()
    other = await workers()
    for task_id in ids:
        assert (await called(node, task_id, "delivered"))["attempts"] == 2
    assert sorted(callback.told["data"]["id"] for callback in receiver.taken) == sorted(ids * 2)
    assert other.log().count("task.callback_recovered") == 4
    assert await no_jobs(node)


async def test_a_worker_killed_under_load_leaves_no_end_untold(
    node: RunningNode, receiver: Receiver, workers: Make
) -> None:
    tasks = [ONE | {"task": f"number {n}", "callback_url": receiver.url("good")} for n in range(120)]
    ids = (await submit(node, {"tasks": tasks})).json()["ids"]
    victim = await workers()
    await eventually(lambda: len(receiver.taken) >= 20)
    await victim.kill()
    await workers()

    async def told() -> bool:
        return await node.rows("SELECT callback_status, count(*)::int FROM tasks GROUP BY 1") == [("delivered", 120)]

    await eventually(told, 20)
    assert {callback.told["data"]["id"] for callback in receiver.taken} == set(ids)
    print(f"120 tasks, 1 kill: {len(receiver.taken)} callbacks")
    assert len(receiver.taken) <= 120 + 8  # the killed worker was making 8 at the most
    await eventually(lambda: no_jobs(node))


async def test_the_log_of_a_callback_that_failed_has_neither_its_path_nor_its_query(
    node: RunningNode, receiver: Receiver, workers: Make
) -> None:
    worker = await workers()
    task_id = await one(node, callback_url=receiver.url("410?token=hidden"))
    await called(node, task_id, "failed")
    await eventually(lambda: "task.callback_failed" in worker.log())
    (line,) = [from_json(line) for line in worker.log().splitlines() if "task.callback_failed" in line]
    told = {name: line[name] for name in ("task_id", "receiver", "reason", "attempts")}
    assert told == {"task_id": task_id, "receiver": receiver.beginning, "reason": "410", "attempts": 1}
    assert "hidden" not in worker.log()
    assert "/410" not in worker.log()
