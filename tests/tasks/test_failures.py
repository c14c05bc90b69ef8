"""Tasks that fail: what on-call hears of them and what not, and results that are too large to be kept."""

import json

import pytest

from service.settings import Settings
from tests.nodes import RunningNode
from tests.routes.test_tasks import ONE, one, read, submit, until
from tests.tasks.workers import working
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

SECRET = "-".join(["canary", "question"])  # joined, because source text around a frame is sent, and may be


def telling(node: RunningNode, collector: Sink, **changes: object) -> Settings:
    """Settings of a worker that reports to the collector, and tries once."""
    return node.settings.model_copy(
        update={"sentry_dsn": type(node.settings.sentry_dsn)(collector.sentry_dsn), "task_tries": 1, **changes}
    )


async def fail(node: RunningNode, **changes: object) -> str:
    task_id = await one(node, **changes)
    await until(node, task_id, "failed")
    return task_id


async def test_a_failed_task_is_told_of_by_its_problem_and_agent_and_without_its_words(
    node: RunningNode, collector: Sink
) -> None:
    async with working(telling(node, collector)):
        task_id = await fail(node, task=SECRET, model="garbage")
        await eventually(lambda: len(collector.events()) == 1, within_s=10)
    (event,) = collector.events()
    assert event["fingerprint"] == ["task", "chat", "upstream-error", "reasoning"]
    assert (event["message"], event["level"]) == ("Task failed: The model server failed", "error")
    tags = event["tags"]
    assert (tags["task_id"], tags["problem"], tags["agent"]) == (task_id, "upstream-error", "reasoning")
    sent = json.dumps(event)
    assert [word for word in (SECRET, node.key, "html") if word in sent] == []


async def test_a_bug_is_told_of_once_with_its_stack(
    node: RunningNode, collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
    async with working(telling(node, collector)):
        await fail(node, task=SECRET)
    (event,) = collector.events()
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert SECRET not in json.dumps(event)


async def test_bad_input_and_what_its_user_cancelled_is_told_to_nobody(
    node: RunningNode, collector: Sink, model_server: Upstream
) -> None:
    async with working(telling(node, collector, task_result_bytes=10)):
        await fail(node, model="too-long")  # refused by the model server
        await fail(node, task="Another")  # its result is too large
        cancelled = await one(node, model="silent")
        await eventually(lambda: model_server.open == 1)
        await node.http.delete(f"/api/v1/tasks/{cancelled}")
        await eventually(lambda: model_server.open == 0)
    assert collector.events() == []


async def test_of_many_like_failures_a_few_are_told(node: RunningNode, collector: Sink) -> None:
    async with working(telling(node, collector)):
        tasks = [ONE | {"model": "garbage", "task": f"number {n}"} for n in range(10)]
        for task_id in (await submit(node, {"tasks": tasks})).json()["ids"]:
            await until(node, task_id, "failed")
        await fail(node, agent="research", model="garbage")
    fingerprints = [event["fingerprint"] for event in collector.events()]
    assert [fingerprint[-1] for fingerprint in fingerprints] == [*["reasoning"] * 3, "research"]


async def test_a_result_that_is_too_large_fails_the_task_at_once(node: RunningNode, model_server: Upstream) -> None:
    settings = node.settings.model_copy(update={"task_result_bytes": 100_000})
    async with working(settings):
        failed = await read(node, await fail(node, model="huge"))
    assert (failed["attempts"], failed["result"], failed["error"]["status"]) == (1, None, 413)
    assert failed["error"]["type"] == "urn:atp:problem:result-too-large"
    assert failed["error"]["limit_bytes"] == 100_000
    assert 200_000 < failed["error"]["result_bytes"] < 201_000
    assert len(model_server.bodies) == 1


async def test_what_several_agents_answered_counts_together(node: RunningNode) -> None:
    several = {"agent": None, "agents": ["reasoning", "research"]}
    body = {key: value for key, value in (ONE | several).items() if value is not None}
    settings = node.settings.model_copy(update={"task_result_bytes": 400})
    async with working(settings):
        await until(node, await one(node), "done")
        (task_id,) = (await submit(node, body)).json()["ids"]
        failed = await until(node, task_id, "failed")
    assert failed["error"]["type"].endswith("result-too-large")
