"""From a bucket of a histogram to a trace: the real OpenMetrics text of every latency that has a trace around it."""

import re

from tests.live.clients import socket
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import one, until
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

CHAT = {"agent": "reasoning", "task": "What is the capital?", "model": "good", "session_id": "conversation-1"}
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
EXEMPLAR = re.compile(r'^(\w+)_bucket\{.*?\} \S+ # \{trace_id="([0-9a-f]{32})"\} ', re.MULTILINE)


async def exemplars(node: RunningNode) -> dict[str, set[str]]:
    """The ids of traces, by the histogram."""
    found: dict[str, set[str]] = {}
    for name, trace_id in EXEMPLAR.findall((await node.private.get("/metrics", headers=OPENMETRICS)).text):
        found.setdefault(name, set()).add(trace_id)
    return found


async def do_everything(node: RunningNode) -> None:
    await node.http.post("/api/v1/chat", json=CHAT | {"stream": True})
    async with socket(node) as client:
        await client.say("ping", id="p")
        await client.hear("pong")
    await until(node, await one(node), "done")


async def test_every_latency_with_a_trace_around_it_leads_to_one(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink
) -> None:
    told = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "node_tasks": 1}
    async with running(node_settings(database_url, redis_url, model_server, **told)) as node:
        await do_everything(node)
        found = await exemplars(node)
    assert set(found) == {
        "http_server_request_duration_seconds",
        "atp_ratelimit_check_duration_seconds",
        "db_client_operation_duration_seconds",
        "db_client_connection_wait_time_seconds",
        "gen_ai_client_operation_duration_seconds",
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "atp_ws_handle_duration_seconds",
        "atp_task_duration_seconds",
        "atp_task_queue_wait_seconds",
    }
    sent = {span.trace_id.hex() for span in collector.spans()}
    assert [name for name, ids in found.items() if not ids <= sent] == []


async def test_what_is_not_sampled_leaves_no_exemplar_and_no_span(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink
) -> None:
    told = {
        "otel_exporter_otlp_endpoint": collector.otlp_endpoint,
        "otel_traces_sampler_arg": 0.0,
        "otel_traces_callers_per_minute": 1,
        "node_tasks": 1,
    }
    async with running(node_settings(database_url, redis_url, model_server, **told)) as node:
        await do_everything(node)
        assert await exemplars(node) == {}
        chosen = {"traceparent": f"00-{7:032x}-00f067aa0ba902b7-01"}
        for _ in range(3):
            await node.http.get("/api/v1/models", headers=chosen)
        await eventually(lambda: len(collector.spans()) > 0, within_s=10)
    assert [span.name for span in collector.spans()].count("GET /api/v1/models") <= 2  # the minute may turn
    assert {span.trace_id.hex() for span in collector.spans()} == {f"{7:032x}"}
