"""Whole traces as a collector reads them: what each of ATP's ways of asking leaves, parents and links."""

import asyncio
from typing import Any

import pytest

from tests.live.clients import socket
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, submit, until
from tests.tasks.receiver import receiving
from tests.tasks.workers import working
from tests.telemetry.sinks import Sink
from tests.telemetry.trees import attributes, named, trees
from tests.upstream import Upstream
from tests.waiting import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
CHAT = {"agent": "reasoning", "task": "What is the capital?", "model": "good"}
SECOND = CHAT | {"task": "Another question"}


async def arrived(collector: Sink, *roots: str) -> list[Any]:
    """The spans of the traces with these roots, once all of these have come: a root ends last."""

    def all_there() -> bool:
        return set(roots) <= {span.name for span in collector.spans()}

    await eventually(all_there, within_s=10)
    chosen = {span.trace_id for span in collector.spans() if span.name in roots}
    return [span for span in collector.spans() if span.trace_id in chosen]


async def test_a_streamed_chat_over_http(told: RunningNode, collector: Sink) -> None:
    await told.http.get("/api/v1/models")  # the key is known from here on
    await told.http.post("/api/v1/chat", json=CHAT | {"stream": True}, headers=CALLER)
    assert trees(await arrived(collector, "POST /api/v1/chat")) == [
        "POST /api/v1/chat",
        "  wait limits",
        "  redis slot_take",
        "  wait cache",
        "  chat good",
        "  wait cache",
        "  wait usage",
    ]
    server = named(collector, "POST /api/v1/chat")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
    assert attributes(server) == {
        "atp.key_prefix": told.key[9:17],
        "atp.agent": "reasoning",
        "atp.model": "good",
        "http.request.method": "POST",
        "http.route": "/api/v1/chat",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }


async def test_the_model_call_says_what_was_asked_of_whom_and_no_words(
    told: RunningNode, collector: Sink, model_server: Upstream
) -> None:
    await told.http.post("/api/v1/chat", json=CHAT, headers=CALLER)
    await arrived(collector, "POST /api/v1/chat")
    call = named(collector, "chat good")
    assert call.kind == call.SPAN_KIND_CLIENT
    assert attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "good",
        "gen_ai.agent.id": "reasoning",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1",
        "server.port": model_server.port,
    }
    assert model_server.headers[-1]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"


async def test_a_refused_model_call_is_an_error_up_to_the_request(told: RunningNode, collector: Sink) -> None:
    await told.http.get("/api/v1/models")
    await told.http.post("/api/v1/chat", json=CHAT | {"model": "refuses"}, headers=CALLER)
    found = await arrived(collector, "POST /api/v1/chat")
    assert [line for line in trees(found) if line.endswith("!")] == ["POST /api/v1/chat !", "  chat refuses !"]
    assert attributes(named(collector, "chat refuses"))["error.type"] == "upstream-error"
    assert attributes(named(collector, "chat refuses"))["http.response.status_code"] == 401
    assert attributes(named(collector, "POST /api/v1/chat"))["error.type"] == "502"


async def test_a_fault_of_ours_in_a_model_call_is_no_cancelled_one(
    told: RunningNode, collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object) -> None:
        raise ValueError("boom")

    monkeypatch.setattr("service.agents.openai_client.OpenAIClient.complete", explode)
    await told.http.post("/api/v1/chat", json=CHAT, headers=CALLER)
    await arrived(collector, "POST /api/v1/chat")
    call = named(collector, "chat good")
    assert call.status.code == call.status.STATUS_CODE_ERROR
    assert attributes(call)["error.type"] == "internal"
    labels = '{error_type="internal",model="good",operation="chat",provider="scripted"}'
    assert await told.metric(f"gen_ai_client_operation_duration_seconds_count{labels}") == 1


async def test_a_method_that_nobody_knows_is_told_as_it_was(told: RunningNode, collector: Sink) -> None:
    await told.http.request("BREW", "/api/v1/models", headers=CALLER)
    await eventually(lambda: bool(collector.spans()), within_s=10)
    (span,) = [span for span in collector.spans() if span.trace_id.hex() == TRACE]
    assert span.name.startswith("HTTP ")
    assert attributes(span)["http.request.method"] == "_OTHER"
    assert attributes(span)["http.request.method_original"] == "BREW"


async def test_a_failure_inside_a_stream_is_an_error_though_its_status_was_200(
    told: RunningNode, collector: Sink
) -> None:
    await told.http.post("/api/v1/chat", json=CHAT | {"model": "breaks-off", "stream": True}, headers=CALLER)
    await arrived(collector, "POST /api/v1/chat")
    request = named(collector, "POST /api/v1/chat")
    assert request.status.code == request.status.STATUS_CODE_ERROR
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["error.type"] == "upstream-error"


async def test_an_operation_says_which_where_and_how_long_it_waited_for_a_connection(
    told: RunningNode, collector: Sink
) -> None:
    await told.http.post("/api/v1/chat", json=CHAT | {"session_id": "conversation-1"}, headers=CALLER)
    await arrived(collector, "POST /api/v1/chat")
    postgresql, redis = named(collector, "postgresql select_key"), named(collector, "redis session_history")
    assert postgresql.kind == redis.kind == redis.SPAN_KIND_CLIENT
    found = attributes(postgresql)
    assert 0 <= found.pop("atp.pool_wait_ms") < 5000
    assert found.pop("server.port") > 0
    assert found == {
        "db.system.name": "postgresql",
        "db.operation.name": "select_key",
        "server.address": "127.0.0.1",
    }
    found = attributes(redis)
    assert found.pop("server.port") > 0
    assert found == {
        "db.system.name": "redis",
        "db.operation.name": "session_history",
        "server.address": "127.0.0.1",
    }


async def test_who_joins_anothers_call_waits_and_links_to_it(told: RunningNode, collector: Sink) -> None:
    slow = CHAT | {"model": "slow"}
    await asyncio.gather(*[told.http.post("/api/v1/chat", json=slow) for _ in range(2)])
    requests: list[Any] = []

    def both() -> bool:
        requests[:] = [span for span in collector.spans() if span.name == "POST /api/v1/chat"]
        return len(requests) == 2

    await eventually(both, within_s=10)
    call, wait = named(collector, "chat slow"), named(collector, "wait answer")
    assert call.trace_id != wait.trace_id
    assert [(link.trace_id, link.span_id) for link in wait.links] == [(call.trace_id, call.parent_span_id)]


async def test_each_message_of_a_socket_is_a_trace_that_links_to_the_handshake(
    told: RunningNode, collector: Sink
) -> None:
    await told.http.get("/api/v1/models")
    async with socket(told, headers=CALLER) as client:
        await client.say("ping", id="p")
        await client.hear("pong")
        await client.say("cancel", id="nobody")
        await client.hear("error")
        await client.say("chat", id="c1", **CHAT)
        await client.hear("done")
    found = await arrived(collector, "GET /ws/session", "ws ping", "ws cancel", "ws chat")
    assert trees(found) == [
        "GET /ws/session",
        "  wait limits",
        "ws ping",
        "ws cancel !",
        "ws chat",
        "  wait limits",
        "  redis slot_take",
        "  wait cache",
        "  chat good",
        "  wait cache",
        "  wait usage",
    ]
    handshake = named(collector, "GET /ws/session")
    assert (handshake.trace_id.hex(), handshake.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
    for name in ("ws ping", "ws cancel", "ws chat"):
        message = named(collector, name)
        assert (message.trace_id.hex() != TRACE, message.parent_span_id) == (True, b"")
        assert [(link.trace_id.hex(), link.span_id) for link in message.links] == [(TRACE, handshake.span_id)]
    assert attributes(named(collector, "ws chat")) == {
        "atp.key_prefix": told.key[9:17],
        "atp.agent": "reasoning",
        "atp.model": "good",
    }
    assert attributes(named(collector, "ws cancel"))["error.type"] == "not-found"


async def test_a_task_and_its_callback_are_traces_that_link_to_the_request(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink
) -> None:
    async with receiving() as receiver:
        told = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "task_callback_urls": [receiver.beginning]}
        async with running(node_settings(database_url, redis_url, model_server, **told)) as node:
            await node.http.get("/api/v1/models")
            task = ONE | {"callback_url": receiver.url("ok")}
            (task_id,) = (await submit(node, task, **CALLER)).json()["ids"]
            async with working(node.settings):
                await until(node, task_id, "done")
                await eventually(lambda: len(receiver.taken) == 1)
    found = await arrived(collector, "POST /api/v1/tasks", "process chat", "process callbacks")
    assert trees(found) == [
        "POST /api/v1/tasks",
        "  wait limits",
        "  postgresql insert_tasks",
        "  redis bus_publish",
        "process chat",
        "  postgresql select_key",
        "  wait cache",
        "  chat good",
        "  wait cache",
        "  wait usage",
        "  postgresql finish_task",
        "process callbacks",
        "  POST callback",
        "  postgresql end_callback",
    ]
    request, call = named(collector, "POST /api/v1/tasks"), named(collector, "POST callback")
    for name in ("process chat", "process callbacks"):
        run = named(collector, name)
        assert (run.kind, run.parent_span_id) == (run.SPAN_KIND_CONSUMER, b"")
        assert [(link.trace_id.hex(), link.span_id) for link in run.links] == [(TRACE, request.span_id)]
        assert attributes(run)["messaging.message.id"] == task_id
    assert (
        receiver.taken[0].headers["traceparent"] == f"00-{call.trace_id.hex()}-{call.span_id.hex()}-03"
    )  # sampled, of a random id


async def test_what_is_shared_is_put_down_to_nobody(told: RunningNode, collector: Sink) -> None:
    """Of eight requests at once most share their round trips; each has its own waits, and none the others'."""
    await told.http.post("/api/v1/chat", json=CHAT)
    await asyncio.gather(*[told.http.post("/api/v1/chat", json=SECOND) for _ in range(8)])

    def requests() -> list[Any]:
        return [span for span in collector.spans() if span.name == "POST /api/v1/chat"]

    await eventually(lambda: len(requests()) == 9, within_s=10)
    for request in requests():
        own = [span.name for span in collector.spans() if span.parent_span_id == request.span_id]
        assert own.count("wait limits") == own.count("wait usage") == 1


async def test_without_a_caller_that_is_recorded_background_work_has_no_spans(
    told: RunningNode, collector: Sink
) -> None:
    await told.http.get("/api/v1/models", headers=CALLER)
    await eventually(lambda: any(span.name == "GET /api/v1/models" for span in collector.spans()), within_s=10)
    assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}
