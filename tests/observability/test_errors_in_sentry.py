"""A node's and a worker's errors in a real Sentry-compatible server: grouped, linked to their traces, scrubbed."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from service.background import Background
from service.errors import DatabaseUnavailable
from service.settings import load
from service.telemetry.metrics import Metrics
from service.telemetry.sentry import ErrorReporter
from tests.nodes import RunningNode, node_settings, running
from tests.observability.bugsink import Bugsink
from tests.routes.test_tasks import one, until
from tests.tasks.workers import working
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

PROMPT = "-".join(["canary", "question"])  # joined, because source text around a frame is sent, and may be
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CHAT = {"agent": "reasoning", "task": PROMPT, "model": "good"}


async def explode(*_: object) -> None:
    raise ValueError(f"cannot answer '{PROMPT}'")


async def test_an_unhandled_error_is_an_issue_with_release_environment_and_the_requests_trace(
    database_url: str,
    redis_url: str,
    model_server: Upstream,
    collector: Sink,
    sentry: Bugsink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
    sinks = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "sentry_dsn": sentry.dsn}
    settings = node_settings(database_url, redis_url, model_server, **sinks, environment="staging")
    async with running(settings) as node:
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        answers = [await node.http.post("/api/v1/chat", json=CHAT, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [500] * 2
        await eventually(lambda: len(sentry.events()) == 2, within_s=10)
        await eventually(lambda: [span.name for span in collector.spans()].count("POST /api/v1/chat") == 2, within_s=10)
    assert sentry.issues() == [("cannot answer '…'", 2)]
    event = sentry.events()[0]
    assert (event["release"], event["environment"], event["level"]) == ("atp@0.1.0", "staging", "error")
    assert event["tags"] == {
        "request_id": answers[0].headers["x-request-id"],
        "route": "/api/v1/chat",
        "trace_id": TRACE,
    }
    linked = event["contexts"]["trace"]
    assert linked["trace_id"] == TRACE
    assert linked["span_id"] in {span.span_id.hex() for span in collector.spans()}
    assert not {"request", "user", "modules", "extra"} & {name for name, value in event.items() if value}
    assert event["breadcrumbs"] == {"values": []}
    text = json.dumps(sentry.events())
    assert [word for word in (PROMPT, node.key, sentry.dsn) if word in text] == []


async def test_failed_tasks_are_one_issue_for_each_problem_and_agent_and_a_bug_has_its_own(
    node: RunningNode, sentry: Bugsink, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"sentry_dsn": SecretStr(sentry.dsn), "task_tries": 1}
    async with working(node.settings.model_copy(update=told)):
        for model in ("garbage", "garbage"):
            await until(node, await one(node, task=PROMPT, model=model), "failed")
        await eventually(lambda: len(sentry.events()) == 2, within_s=10)
        monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
        await until(node, await one(node, task=PROMPT), "failed")
        await eventually(lambda: len(sentry.events()) == 3, within_s=10)
    assert sentry.issues() == [("Task failed: The model server failed", 2), ("cannot answer '…'", 1)]
    text = json.dumps(sentry.events())
    assert [word for word in (PROMPT, node.key, "sk-upstream") if word in text] == []


async def test_a_background_work_that_fails_is_told_of_and_a_dependency_that_is_away_is_not(
    sentry: Bugsink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.background.RESTART_AFTER_S", 0.0)
    reporter = ErrorReporter(load(sentry_dsn=sentry.dsn), "atp@test", dropped=lambda: None)
    faults: list[Exception] = [DatabaseUnavailable(), KeyError("shard")]

    async def work() -> None:
        if faults:
            raise faults.pop(0)

    async with Background(Metrics().unhandled.labels("background"), reporter.background) as background:
        await background.keep("presence-audit", work)
    reporter.close()
    assert sentry.issues() == [("'…'", 1)]
    assert sentry.events()[0]["tags"] == {"route": "background presence-audit"}


def test_without_a_trace_none_is_made_up(sentry: Bugsink) -> None:
    reporter = ErrorReporter(load(sentry_dsn=sentry.dsn), "atp@test", dropped=lambda: None)
    reporter.capture(RuntimeError("boom"), route="here")
    reporter.close()
    (event,) = sentry.events()
    assert "trace" not in event.get("contexts", {})


def test_a_flood_of_one_error_leaves_room_for_another_and_is_no_lost_telemetry(sentry: Bugsink) -> None:
    lost: list[Any] = []
    reporter = ErrorReporter(load(sentry_dsn=sentry.dsn), "atp@test", lambda: lost.append(1), clock=lambda: 0.0)
    for _ in range(500):
        reporter.capture(RuntimeError("boom"), route="flood")
    reporter.capture(RuntimeError("boom"), route="elsewhere")
    reporter.close()
    assert [event["tags"]["route"] for event in sentry.events()] == ["flood", "flood", "flood", "elsewhere"]
    assert lost == []
