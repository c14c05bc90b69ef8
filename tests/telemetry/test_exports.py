"""Traces, errors and logs leave the node whole; and a sink that is dead or frozen changes nothing for callers."""

import asyncio
import contextlib
import io
import json
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind

from service.telemetry.span_queue import BATCH_SPANS, QUEUE_SPANS, SpanQueue
from service.telemetry.spans import RecordedSpan, Spans
from tests.nodes import RunningNode, node_settings, running
from tests.server.slow_clients import until
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

LOCAL = "-".join(["canary", "local"])  # joined, because source text around a frame is sent, and may be
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CHAT = {"agent": "reasoning", "task": "What is the canary-task-word?", "model": "good"}


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the node prints; ask for it before the node."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    return stream


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


async def test_a_chat_is_one_trace_with_the_model_call_inside(told: RunningNode, collector: Sink) -> None:
    await told.http.post("/api/v1/chat", json=CHAT, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    await eventually(lambda: "POST /api/v1/chat" in [span.name for span in collector.spans()], within_s=10)
    by_name = {span.name: span for span in collector.spans()}
    server, model = by_name["POST /api/v1/chat"], by_name["chat good"]
    assert server.trace_id.hex() == model.trace_id.hex() == TRACE
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert model.parent_span_id == server.span_id


async def test_an_unhandled_error_reaches_sentry_without_bodies_or_variables(
    stdout: io.StringIO, told: RunningNode, collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: Any) -> None:
        local_secret = LOCAL
        raise RuntimeError(f"boom {len(local_secret)}")

    monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
    response = await told.http.post("/api/v1/chat", json=CHAT)
    assert response.status_code == 500
    assert LOCAL not in stdout.getvalue()
    await eventually(lambda: len(collector.events()) == 1, within_s=10)
    event = collector.events()[0]
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert event["tags"]["request_id"] == response.headers["x-request-id"]
    assert event["tags"]["route"] == "/api/v1/chat"
    text = json.dumps(event)
    for canary in ("canary-task-word", LOCAL, told.key):
        assert canary not in text


async def test_logs_are_json_with_request_and_trace_ids_and_nothing_personal(
    stdout: io.StringIO, told: RunningNode, collector: Sink
) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "log-me-please"}
    await told.http.post("/api/v1/chat", json=CHAT, headers=headers)
    lines: list[dict[str, Any]] = []

    def logged() -> bool:
        lines[:] = [json.loads(line) for line in stdout.getvalue().splitlines()]
        return any(line["event"] == "request" for line in lines)

    await eventually(logged)
    line = next(line for line in lines if line["event"] == "request")
    assert line["request_id"] == "log-me-please"
    assert line["trace_id"] == TRACE
    assert (line["method"], line["route"], line["status"]) == ("POST", "/api/v1/chat", 200)
    text = json.dumps(lines) + str([attributes(span) for span in collector.spans()])
    assert "canary-task-word" not in text
    assert told.key not in text


@pytest.mark.parametrize("state", ["dead", "frozen"])
async def test_a_sink_that_is_away_changes_nothing_for_callers_and_the_loss_is_counted(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink, state: str
) -> None:
    collector.silent = True
    endpoint = collector.otlp_endpoint if state == "frozen" else "http://127.0.0.1:1"
    sinks = {"otel_exporter_otlp_endpoint": endpoint, "sentry_dsn": "http://key@127.0.0.1:1/1"}
    async with running(node_settings(database_url, redis_url, model_server, **sinks)) as node:
        durations = []
        for _ in range(300):
            started = time.monotonic()
            assert (await node.http.get("/api/v1/models")).status_code == 200
            durations.append(time.monotonic() - started)
        assert statistics.quantiles(durations, n=100)[98] < 0.1
        if state == "dead":

            async def counted() -> bool:
                return await node.metric('atp_telemetry_dropped_total{signal="traces"}') > 0

            await eventually(counted, within_s=20)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 10


def span() -> RecordedSpan:
    return RecordedSpan(cast(Spans, None), "x", SpanKind.INTERNAL, INVALID_SPAN_CONTEXT, None)


def test_the_span_queue_is_bounded_and_counts_what_it_drops() -> None:
    freed, lost = threading.Event(), list[int]()
    queue = SpanQueue(lambda batch: freed.wait(10), lost.append)
    for _ in range(QUEUE_SPANS + 2000):
        queue.put(span())
    # The thread may have taken one batch before it stuck.
    assert sum(lost) in (2000, 2000 - BATCH_SPANS)
    freed.set()
    queue.close(1)


def test_all_spans_are_sent_in_order_and_in_batches() -> None:
    sent: list[list[RecordedSpan]] = []
    queue = SpanQueue(lambda batch: not sent.append([*batch]), lambda lost: None)
    spans = [span() for _ in range(3 * BATCH_SPANS + 5)]
    for each in spans:
        queue.put(each)
    queue.close(1)
    assert [each for batch in sent for each in batch] == spans
    assert max(map(len, sent)) <= BATCH_SPANS


def test_a_batch_that_cannot_be_sent_is_counted_and_the_next_one_goes() -> None:
    took, lost = list[int](), list[int]()

    def send(batch: Sequence[RecordedSpan]) -> bool:
        took.append(len(batch))
        if len(took) == 1:
            raise ValueError("no such number")
        return len(took) != 2

    queue = SpanQueue(send, lost.append)
    for number in range(3):
        queue.put(span())
        assert until(lambda number=number: len(took) > number, 5)
    queue.close(1)
    assert (took, lost) == ([1, 1, 1], [1, 1])


def test_nothing_is_begun_once_the_time_to_close_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.telemetry.span_queue.CLOSE_S", 0.2)
    took, lost = list[int](), list[int]()

    def send(batch: Sequence[RecordedSpan]) -> bool:
        time.sleep(0.3)
        return not took.append(len(batch))

    queue = SpanQueue(send, lost.append)
    for _ in range(3 * BATCH_SPANS):
        queue.put(span())
    queue.close(5)
    assert sum(took) + sum(lost) == 3 * BATCH_SPANS
    assert 1 <= len(took) <= 2


def test_a_stdout_nobody_reads_drops_lines_and_blocks_nobody() -> None:
    import os

    from service.telemetry.logging import LineWriter

    read_end, write_end = os.pipe()
    stream = os.fdopen(write_end, "w")
    dropped: list[int] = []
    writer = LineWriter(stream, lambda: dropped.append(1))
    started = time.monotonic()
    for number in range(50_000):
        writer.print(f"line {number:0100}")
    assert time.monotonic() - started < 2
    assert len(dropped) > 20_000
    os.close(read_end)  # the writer's blocked write now fails, and its thread goes on to the end
    writer.close()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


async def test_the_sentry_allowance_is_per_minute() -> None:
    from service.telemetry.allowance import Allowance

    now = [0.0]
    allowance = Allowance(2, lambda: now[0])
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now[0] = 60.0
    assert allowance.take()
    await asyncio.sleep(0)
