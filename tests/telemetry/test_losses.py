"""What does not get through is counted, whoever's fault it is, and the log says so once and not for each."""

import io
import json
import logging
import threading
from typing import cast

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind

from service.settings import load
from service.telemetry.logging import LineWriter, StdlibBridge, configure
from service.telemetry.sentry import ErrorReporter
from service.telemetry.span_queue import BATCH_SPANS, SpanQueue
from service.telemetry.spans import RecordedSpan, Spans
from tests.live.clients import refusal, socket
from tests.nodes import RunningNode, node_settings, running
from tests.server.slow_clients import until
from tests.telemetry.sinks import Sink
from tests.upstream import Upstream
from tests.waiting import eventually

UNREACHABLE = "http://key@127.0.0.1:1/1"


def span() -> RecordedSpan:
    return RecordedSpan(cast(Spans, None), "x", SpanKind.INTERNAL, INVALID_SPAN_CONTEXT, None)


@pytest.mark.parametrize(("status", "headers"), [(429, ""), (500, ""), (413, ""), (403, "")])
async def test_errors_that_sentry_refuses_are_counted(collector: Sink, status: int, headers: str) -> None:
    collector.status = status
    lost: list[int] = []
    reporter = ErrorReporter(load(sentry_dsn=collector.sentry_dsn), "atp@test", lambda: lost.append(1))
    for number in range(3):
        reporter.capture(RuntimeError("boom"), route=f"/{number}")
    await eventually(lambda: len(lost) == 3, within_s=10)
    reporter.close()
    assert len(lost) == 3


async def test_errors_that_wait_for_a_silent_sentry_are_counted(
    collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry_sdk.transport.HttpTransport._get_pool_options", lambda _: {"timeout": 0.2})
    collector.silent = True
    lost: list[int] = []
    reporter = ErrorReporter(load(sentry_dsn=collector.sentry_dsn), "atp@test", lambda: lost.append(1))
    reporter.capture(RuntimeError("boom"), route="/")
    await eventually(lambda: len(lost) == 1, within_s=10)
    reporter.close()


async def test_errors_are_sent_once_sentry_is_well_and_only_lost_ones_are_counted(collector: Sink) -> None:
    lost: list[int] = []
    reporter = ErrorReporter(load(sentry_dsn=collector.sentry_dsn), "atp@test", lambda: lost.append(1))
    reporter.capture(RuntimeError("boom"), route="/")
    await eventually(lambda: len(collector.events()) == 1, within_s=10)
    reporter.close()
    assert lost == []


async def test_a_node_exports_the_errors_that_did_not_reach_sentry(
    database_url: str, redis_url: str, model_server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
    async with running(node_settings(database_url, redis_url, model_server, sentry_dsn=UNREACHABLE)) as node:
        chat = {"agent": "reasoning", "task": "x", "model": "good"}
        assert (await node.http.post("/api/v1/chat", json=chat)).status_code == 500

        async def counted() -> bool:
            return await node.metric('atp_telemetry_dropped_total{signal="errors"}') == 1

        await eventually(counted, within_s=10)


def test_spans_that_come_after_the_end_are_counted() -> None:
    lost: list[int] = []
    queue = SpanQueue(lambda batch: True, lost.append)
    queue.close(1)
    queue.put(span())
    assert lost == [1]


def test_spans_that_a_stuck_sender_leaves_behind_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.telemetry.span_queue.CLOSE_S", 0.1)
    stuck, freed = threading.Event(), threading.Event()
    lost: list[int] = []

    def send(_: object) -> bool:
        stuck.set()
        return freed.wait(10)

    queue = SpanQueue(send, lost.append)
    for _ in range(BATCH_SPANS + 7):
        queue.put(span())
    assert stuck.wait(5)
    queue.close(0.1)
    assert sum(lost) == BATCH_SPANS + 7
    freed.set()


def stdout(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Not by a fixture: pytest sets its own again before the test itself."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    return stream


def told(lines: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_collector_that_is_away_is_a_line_and_so_is_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = stdout(monkeypatch)
    writer = configure(load(log_format="json"), lambda: None)
    well = threading.Event()

    def send(batch: object) -> bool:
        if not well.is_set():
            logging.getLogger("opentelemetry.exporter.otlp.proto.http").error("Failed to export: 503")
        return well.is_set()

    lost: list[int] = []
    queue = SpanQueue(send, lost.append)
    for number in range(5):
        queue.put(span())
        queue._wake.set()
        assert until(lambda number=number: len(lost) > number, 5)
    well.set()
    queue.put(span())
    queue.close(1)
    writer.close()
    assert [(line["event"], line.get("message", line.get("lost"))) for line in told(lines)] == [
        ("library.log", "Failed to export: 503"),
        ("spans.sent_again", 5),
    ]


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("message", "given"),
    [("%d rows", ("many",)), ("%s %s", ("one",)), ("%s", (Unspeakable(),)), ("%s", (b"\xff",)), ("\ud800", ())],
)
def test_a_library_whose_words_do_not_fit_goes_on_and_has_its_line(
    monkeypatch: pytest.MonkeyPatch, message: str, given: tuple[object, ...]
) -> None:
    lines = stdout(monkeypatch)
    writer = configure(load(log_format="json"), lambda: None)
    StdlibBridge().emit(logging.LogRecord("redis", logging.ERROR, "client.py", 7, message, given, None))
    writer.close()
    assert [line["event"] for line in told(lines)] == ["library.log"]


@pytest.mark.parametrize("value", [b"\xff", "\ud800", Unspeakable(), {1: Unspeakable()}])
def test_a_value_that_json_does_not_know_costs_the_value_and_not_the_line(
    monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    lines = stdout(monkeypatch)
    import structlog

    writer = configure(load(log_format="json"), lambda: None)
    structlog.get_logger().error("odd", value=value, request_id="r-1")
    writer.close()
    (line,) = told(lines)
    assert (line["event"], line["level"], line["request_id"]) == ("odd", "error", "r-1")


def test_a_line_that_cannot_be_made_is_counted_and_the_next_one_is_written() -> None:
    stream, lost = io.StringIO(), list[int]()
    writer = LineWriter(stream, lambda: lost.append(1))

    def fail() -> str:
        raise KeyError("level")

    writer.print(fail)
    assert until(lambda: len(lost) == 1, 5)
    writer.print("well")
    writer.close()
    assert stream.getvalue() == "well\n"


async def ask(node: RunningNode) -> None:
    chat = {"agent": "reasoning", "task": "x", "model": "good"}
    await node.http.post("/api/v1/chat", json=chat)
    await node.http.post("/api/v1/chat", json=chat | {"agent": "nobody"})
    await node.http.post("/api/v1/chat", json=chat | {"model": "refuses"})


@pytest.mark.parametrize(
    ("level", "told_of"),
    [("info", [(200, "info"), (404, "info"), (502, "warning")]), ("warning", [(502, "warning")]), ("error", [])],
)
async def test_a_failure_leaves_its_line_also_where_only_warnings_are_told(
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    redis_url: str,
    model_server: Upstream,
    level: str,
    told_of: list[tuple[int, str]],
) -> None:
    lines = stdout(monkeypatch)
    async with running(node_settings(database_url, redis_url, model_server, log_level=level)) as node:
        await ask(node)
    found = [line for line in told(lines) if line["event"] == "request" and line["route"] == "/api/v1/chat"]
    assert [(line["status"], line["level"]) for line in found] == told_of


async def test_a_handshake_leaves_a_line_whatever_becomes_of_it(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str, model_server: Upstream
) -> None:
    lines = stdout(monkeypatch)
    async with running(node_settings(database_url, redis_url, model_server)) as node:
        async with socket(node, node.key):
            pass
        await refusal(node, "atp_live_no-such-key")
    found = [line for line in told(lines) if line["event"] == "request" and line["route"] == "/ws/session"]
    assert [(line["status"], line["level"], len(line["request_id"])) for line in found] == [
        (101, "info", 32),
        (401, "info", 32),
    ]
