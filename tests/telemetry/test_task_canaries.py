"""What a task asks, and where its callback goes, is in no log, span, metric or error, nor in the name of a key."""

import io
import json

import pytest
import redis

from tests.nodes import node_settings, running
from tests.routes.test_tasks import one, until
from tests.tasks.receiver import receiving
from tests.telemetry.sinks import Sink
from tests.telemetry.test_canaries import NOWHERE, explode, mark
from tests.upstream import Upstream
from tests.waiting import eventually


def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a node that is opened from here on prints. No fixture: pytest puts its own stdout back before the test."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    return stream


async def test_a_run_and_its_callback_tell_nobody_what_was_asked_and_where_it_goes(
    database_url: str,
    redis_url: str,
    model_server: Upstream,
    collector: Sink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout = printed(monkeypatch)
    sinks = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "sentry_dsn": collector.sentry_dsn}
    async with receiving() as receiver:
        more = {"task_callback_urls": [receiver.beginning], "task_callback_backoff": 0.1, "task_tries": 1}
        settings = node_settings(database_url, redis_url, model_server, node_tasks=1, **sinks, **more)
        async with running(settings) as node:
            url = receiver.url(f"once-500?token={mark('token')}")
            await until(node, await one(node, task=mark("task"), callback_url=url), "done")
            await until(node, await one(node, task=mark("task"), model="garbage", callback_url=url), "failed")
            with monkeypatch.context() as patch:
                patch.setattr("service.agents.openai_client.OpenAIClient.complete", explode)
                await until(node, await one(node, task=mark("another"), callback_url=url), "failed")
            await eventually(lambda: len(receiver.taken) == 4, within_s=10)
            await eventually(lambda: len(collector.events()) == 2, within_s=10)  # a bug, and a model server's fault
            metrics = (await node.private.get("/metrics")).text
        with redis.Redis.from_url(redis_url) as client:
            names = b"\n".join(client.scan_iter(count=1000)).decode("latin-1")
    spans = {span.name for span in collector.spans()}
    assert {"process chat", "process callbacks", "POST callback", "chat garbage"} <= spans
    assert mark("task") in json.dumps(model_server.bodies)
    assert "task.failed" in stdout.getvalue()
    assert "task.unhandled" in stdout.getvalue()
    places = {
        "logs": stdout.getvalue(),
        "spans and errors": "\n".join(body.decode("latin-1") for _, body in collector.posts),
        "metrics": metrics,
        "names of keys": names,
    }
    sought = [mark(""), node.key, *NOWHERE]
    assert {place: [secret for secret in sought if secret in text] for place, text in places.items()} == {
        "logs": [],
        "spans and errors": [],
        "metrics": [],
        "names of keys": [],
    }


async def test_a_line_of_a_run_has_the_tasks_request_and_the_runs_trace(
    database_url: str,
    redis_url: str,
    model_server: Upstream,
    collector: Sink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout = printed(monkeypatch)
    told = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "task_tries": 1, "node_tasks": 1}
    async with running(node_settings(database_url, redis_url, model_server, **told)) as node:
        await until(node, await one(node, model="garbage"), "failed")
        await eventually(lambda: "task.failed" in stdout.getvalue())
    (run,) = [span for span in collector.spans() if span.name == "process chat"]
    (request,) = [
        json.loads(line) for line in stdout.getvalue().splitlines() if '"POST"' in line and "/api/v1/tasks" in line
    ]
    (line,) = [json.loads(line) for line in stdout.getvalue().splitlines() if "task.failed" in line]
    assert (line["trace_id"], line["request_id"]) == (run.trace_id.hex(), request["request_id"])
