"""A task's run, and its callback, in the traces: each one of its own, linked to the request that made it."""

from typing import Any

from service.settings import Settings
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, one, submit, until
from tests.tasks.receiver import receiving
from tests.tasks.workers import working
from tests.telemetry.sinks import Sink
from tests.telemetry.test_exports import TRACE, attributes
from tests.upstream import Upstream
from tests.waiting import eventually

REQUEST = f"00-{TRACE}-00f067aa0ba902b7-01"
SECRET = "-".join(["canary", "question"])


def traced(node: RunningNode, collector: Sink) -> Settings:
    """A worker's settings."""
    sinks = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "task_tries": 1}
    return node.settings.model_copy(update=sinks)


def named(collector: Sink, name: str) -> list[Any]:
    return [span for span in collector.spans() if span.name == name]


async def test_the_run_links_to_the_request_and_is_exported_when_the_worker_stops(
    told: RunningNode, collector: Sink
) -> None:
    (task_id,) = (await submit(told, traceparent=REQUEST)).json()["ids"]
    async with working(traced(told, collector)):
        await until(told, task_id, "done")
    (run,), (call,) = named(collector, "process chat"), named(collector, "chat good")  # at once: nothing is left behind
    await eventually(lambda: len(named(collector, "POST /api/v1/tasks")) == 1, within_s=10)
    (request,) = named(collector, "POST /api/v1/tasks")
    assert [(link.trace_id.hex(), link.span_id) for link in run.links] == [(TRACE, request.span_id)]
    assert run.trace_id.hex() != TRACE
    assert (call.trace_id, call.parent_span_id) == (run.trace_id, run.span_id)
    assert run.kind == run.SPAN_KIND_CONSUMER
    assert attributes(run) == {
        "messaging.system": "procrastinate",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "chat",
        "messaging.message.id": task_id,
        "atp.task_attempt": 1,
        "atp.agent": "reasoning",
        "atp.model": "good",
    }


async def test_each_try_of_a_callback_is_a_call_linked_to_the_request_and_says_nothing_of_its_url(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink
) -> None:
    sinks = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "task_callback_backoff": 0.1}
    async with receiving() as receiver:
        places = {"task_callback_urls": [receiver.beginning]}
        async with running(node_settings(database_url, redis_url, model_server, **sinks, **places)) as node:
            url = receiver.url(f"once-500?token={SECRET}")
            (task_id,) = (await submit(node, ONE | {"callback_url": url}, traceparent=REQUEST)).json()["ids"]
            async with working(node.settings):
                await eventually(lambda: len(receiver.taken) == 2)
    failed, taken = named(collector, "POST callback")
    (request,) = named(collector, "POST /api/v1/tasks")
    for run, span in zip(named(collector, "process callbacks"), (failed, taken), strict=True):
        assert [(link.trace_id.hex(), link.span_id) for link in run.links] == [(TRACE, request.span_id)]
        assert (span.kind, span.trace_id.hex() != TRACE) == (span.SPAN_KIND_CLIENT, True)
        assert (span.trace_id, span.parent_span_id) == (run.trace_id, run.span_id)
    about = {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": receiver.port,
        "messaging.message.id": task_id,
    }
    assert attributes(failed) == about | {"error.type": "500", "http.response.status_code": 500}
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert attributes(taken) == about | {"http.request.resend_count": 1, "http.response.status_code": 204}
    assert SECRET not in str(collector.spans())
    assert "once-500" not in str(collector.spans())


async def test_of_a_failure_the_span_has_its_code_and_no_words(node: RunningNode, collector: Sink) -> None:
    async with working(traced(node, collector)):
        await until(node, await one(node, task=SECRET, model="garbage"), "failed")
    (run,) = named(collector, "process chat")
    assert (run.status.code, attributes(run)["error.type"]) == (run.status.STATUS_CODE_ERROR, "upstream-error")
    assert list(run.events) == []
    assert SECRET not in str(collector.spans())
