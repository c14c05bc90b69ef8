"""Deadlines of tasks: what has not begun by then fails within a second, whoever is free; what has begun may end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import DeadlinePassed
from service.tasks.lateness import Lateness
from service.tasks.upkeep import Upkeep
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, TASKS, one, read, submit, until
from tests.tasks.receiver import Receiver, receiving
from tests.tasks.workers import upkeep, working
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

PASS = "UPDATE tasks SET deadline = now() RETURNING id"
JOBS = "SELECT queue_name, count(*)::int FROM procrastinate_jobs GROUP BY queue_name ORDER BY 1"
COUNT_JOBS = "SELECT count(*)::int FROM procrastinate_jobs WHERE args ->> 'task_id' = %s"
FAILED = "atp_tasks_total", {"outcome": "failed", "task": "chat"}


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


@pytest.fixture
async def calling(
    database_url: str, redis_url: str, model_server: Upstream, receiver: Receiver
) -> AsyncIterator[RunningNode]:
    """A node whose tasks may call back, and which runs none."""
    settings = node_settings(
        database_url, redis_url, model_server, task_callback_urls=[receiver.beginning], task_callback_backoff=0.1
    )
    async with running(settings) as node:
        yield node


async def test_a_task_that_waits_fails_when_its_deadline_passes_though_no_worker_is_free_for_it(
    calling: RunningNode, receiver: Receiver, model_server: Upstream
) -> None:
    task_id = await one(calling, callback_url=receiver.url("good"), deadline=in_seconds(0.3))
    async with working(calling.settings, 1, "callbacks") as worker:
        late = await until(calling, task_id, "failed", within_s=5)
        await eventually(lambda: receiver.taken)
        assert worker.metrics.registry.get_sample_value(*FAILED) == 1
    assert late["finished_at"] > late["deadline"]
    assert (late["attempts"], late["error"]["type"]) == (0, "urn:atp:problem:deadline-passed")
    assert late["error"]["request_id"]
    assert [callback.told["type"] for callback in receiver.taken] == ["task.failed"]
    assert await calling.rows(JOBS) == []
    assert model_server.bodies == []


async def test_whoever_follows_a_task_hears_that_it_was_too_late(node: RunningNode) -> None:
    task_id = await one(node, deadline=in_seconds(1))
    async with working(node.settings, 1, "callbacks"):
        followed = await node.http.get(f"{TASKS}/{task_id}/events")  # until its end
    assert [line for line in followed.text.splitlines() if line.startswith("event:")] == [
        "event: queued",
        "event: failed",
    ]


async def test_sentry_hears_of_late_tasks_by_their_agents(node: RunningNode, collector: Sink) -> None:
    await one(node)
    await node.rows(PASS)
    dsn = type(node.settings.sentry_dsn)(collector.sentry_dsn)
    async with working(node.settings.model_copy(update={"sentry_dsn": dsn}), 1, "callbacks"):
        await eventually(lambda: len(collector.events()) == 1, within_s=10)
    assert collector.events()[0]["fingerprint"] == ["task", "chat", "deadline-passed", "reasoning"]


async def test_a_task_that_began_before_its_deadline_may_end_after_it(node: RunningNode) -> None:
    task_id = await one(node, model="slow")
    async with working(node.settings):
        await until(node, task_id, "running")
        await node.rows(PASS)
        async with upkeep(node.settings, kept_s=60) as work:
            await work.keep_time()
        assert (await read(node, task_id))["status"] == "running"
        assert (await until(node, task_id, "done"))["attempts"] == 1


async def test_a_task_that_waits_to_be_tried_again_fails_at_its_deadline(
    node: RunningNode, model_server: Upstream
) -> None:
    model_server.to_fail = 1
    async with working(node.settings.model_copy(update={"task_backoff": 60})) as worker:
        task_id = await one(node, model="recovers")
        await eventually(lambda: model_server.bodies)
        await until(node, task_id, "queued")
        await node.rows(PASS)
        late = await until(node, task_id, "failed", within_s=5)
        await eventually(lambda: worker.metrics.registry.get_sample_value(*FAILED) == 1)
        ran = worker.metrics.registry.get_sample_value("atp_task_duration_seconds_count", {"task": "chat"})
        assert ran == 0  # its run ended before: the wait is not a part of it
    assert (late["attempts"], late["error"]["title"]) == (1, "The task's deadline has passed")


async def test_a_scheduled_task_fails_at_its_deadline_and_gets_no_job(node: RunningNode) -> None:
    await one(node, not_before=in_seconds(3600), deadline=in_seconds(7200))
    await node.rows("UPDATE tasks SET not_before = now() - interval '2 s', deadline = now() RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.keep_time()
    assert await node.rows("SELECT status FROM tasks") == [("failed",)]
    assert await node.rows(JOBS) == []


async def test_what_comes_due_does_not_wait_for_many_that_are_late(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(node, {"tasks": [ONE | {"deadline": in_seconds(3600)}] * 250})
    await node.rows("UPDATE tasks SET deadline = now() RETURNING id")
    due = await one(node, not_before=in_seconds(3600))
    ends, jobs_of_the_due = Lateness.end_some, list[Any]()

    async def ended(self: Lateness) -> bool:
        jobs_of_the_due.extend(await node.rows(COUNT_JOBS, due))
        more = await ends(self)
        await node.rows("UPDATE tasks SET not_before = now() WHERE deadline IS NULL RETURNING id")
        return more

    monkeypatch.setattr(Lateness, "end_some", ended)
    async with upkeep(node.settings, kept_s=60) as work:
        await work.keep_time()
    assert jobs_of_the_due == [(0,), (1,), (1,)]
    assert await node.rows("SELECT status, count(*)::int FROM tasks GROUP BY status ORDER BY 1") == [
        ("failed", 250),
        ("queued", 1),
    ]


async def test_two_workers_that_look_at_once_end_each_late_task_once(calling: RunningNode, receiver: Receiver) -> None:
    called = ONE | {"callback_url": receiver.url("good")}
    await submit(calling, {"tasks": [called] * 350})
    await one(calling)
    await calling.rows("UPDATE tasks SET deadline = now() WHERE callback_url IS NOT NULL RETURNING id")
    told: Counter[Any] = Counter()
    async with (
        upkeep(calling.settings, kept_s=60, told=told) as one_work,
        upkeep(calling.settings, kept_s=60, told=told) as other,
    ):
        await asyncio.gather(one_work.keep_time(), other.keep_time())
        await one_work.keep_time()  # what the other had in hand was passed over
    assert (len(told), set(told.values())) == (350, {1})
    assert await calling.rows("SELECT status, count(*)::int FROM tasks GROUP BY status ORDER BY 1") == [
        ("failed", 350),
        ("queued", 1),
    ]
    assert await calling.rows(JOBS) == [("callbacks", 350), ("chat", 1)]


async def test_a_worker_that_comes_to_a_late_task_first_tells_the_same_problem(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = await one(node)
    await node.rows(PASS)
    async with upkeep(node.settings, kept_s=60) as work:
        await work.keep_time()
    met = await one(node)
    await node.rows("UPDATE tasks SET deadline = now() WHERE status = 'queued' RETURNING id")

    async def nobody_looks(_: Upkeep) -> None: ...

    monkeypatch.setattr(Upkeep, "begin", nobody_looks)
    async with working(node.settings):
        await until(node, met, "failed")
    first, second = [(await read(node, task_id))["error"] for task_id in (swept, met)]
    assert first.pop("request_id") != second.pop("request_id")
    assert first == second
    assert first["status"] == DeadlinePassed.status


@pytest.mark.parametrize("batch", [False, True])
async def test_a_deadline_that_has_passed_is_refused_by_its_name(node: RunningNode, batch: bool) -> None:
    late = ONE | {"deadline": in_seconds(-1)}
    refused = await submit(node, {"tasks": [ONE, late]} if batch else late)
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "tasks.1.deadline" if batch else "deadline", "message": "has passed"}]
    assert await node.rows("SELECT count(*)::int FROM tasks") == [(0,)]


@pytest.mark.parametrize("batch", [False, True])
async def test_a_deadline_before_the_start_is_refused_by_its_name(node: RunningNode, batch: bool) -> None:
    wrong = ONE | {"not_before": in_seconds(60), "deadline": in_seconds(59)}
    refused = await submit(node, {"tasks": [ONE, wrong]} if batch else wrong)
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == ("tasks.1.deadline" if batch else "deadline")
    assert "must lie after not_before" in error["message"]


async def test_who_sends_again_after_the_deadline_gets_the_first_answer(node: RunningNode) -> None:
    body = ONE | {"deadline": in_seconds(0.3)}
    first = await submit(node, body, **{"idempotency-key": "lost answer"})
    await asyncio.sleep(0.4)  # what is measured is that it is late
    again = await submit(node, body, **{"idempotency-key": "lost answer"})
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
