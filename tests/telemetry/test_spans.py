"""Our span of a request, held against the library's: the same calls leave the same bytes."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace import Tracer as OtelTracer

from service.http.context import end_span, parent_context
from service.settings import load
from service.telemetry.otlp import encoded
from service.telemetry.spans import RecordedSpan, Spans
from service.telemetry.tracing import CallersWish, Process, Tracing, resource, sampler
from tests.nodes import RunningNode
from tests.telemetry.sinks import Sink
from tests.waiting import eventually

ERROR = ValueError("no such thing")
CALLER = 0x4BF92F3577B34DA6A3CE929D0E0E4736


class Ids(RandomIdGenerator):
    """The same ones on both sides."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1


class Side:
    """A tracer, the spans of requests that are started beside it, and what was ended."""

    def __init__(self, share: float, ours: bool) -> None:
        resource = Resource({"service.name": "atp"})
        provider = TracerProvider(sampler(share, 600), resource, shutdown_on_exit=False, id_generator=Ids())
        self._librarys = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._librarys))
        tracer = provider.get_tracer("atp", "1.2.3")
        assert isinstance(tracer, Tracer)
        self.recorded: list[RecordedSpan] = []
        self.tracer, self.ours = tracer, Spans(tracer, share, self.recorded.append) if ours else None

    def ended(self) -> Sequence[ReadableSpan]:
        """In the library's form."""
        return [span.readable() for span in self.recorded] if self.ours else self._librarys.get_finished_spans()

    def child(self, parent: Span, links: list[Link]) -> Span:
        """Of a span of this side."""
        tracer = self.ours or self.tracer
        about = {"messaging.system": "procrastinate", "atp.task_attempt": 1}
        return tracer.start_span("process chat", set_span_in_context(parent), SpanKind.CONSUMER, about, links, 77)

    def run(self, asked: Link) -> Span:
        """A trace of its own that links to what asked for it."""
        return (self.ours or self.tracer).start_span("process chat", kind=SpanKind.CONSUMER, links=[asked])

    def start(self, name: str, caller: SpanContext | None = None) -> Span:
        context = set_span_in_context(NonRecordingSpan(caller)) if caller else None
        if self.ours:
            return self.ours.start_request_span(name, context)
        return self.tracer.start_span(name, context, SpanKind.SERVER)


def sides(share: float) -> tuple[Side, Side]:
    return Side(share, ours=True), Side(share, ours=False)


def timeless(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    for span in [span for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]:
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        span.start_time_unix_nano = span.end_time_unix_nano = 0
        for event in span.events:
            event.time_unix_nano = 0
    return request


def assert_same(ours: Side, librarys: Side) -> None:
    sent, expected = ours.recorded, librarys.ended()
    assert len(sent) == len(expected)
    if expected:
        assert timeless(ExportTraceServiceRequest.FromString(encoded(sent))) == timeless(encode_spans(expected))
        assert timeless(encode_spans(ours.ended())) == timeless(encode_spans(expected))


def answered(span: Span) -> None:
    end_span(span, {"scheme": "https", "atp.key_prefix": "abcdefgh"}, "POST", "/api/v1/chat", 200)


def failed(span: Span) -> None:
    end_span(span, {"scheme": "http"}, "POST", "/api/v1/chat", 503)


def unforeseen(span: Span) -> None:
    span.record_exception(ERROR)
    span.record_exception(pytest.UsageError("of a module"), {"atp.part": "chat"}, escaped=True)
    end_span(span, {"scheme": "http", "method": "BREW" * 99}, "_OTHER", "unmatched", 500)


def renamed(span: Span) -> None:
    span.update_name("GET /healthz")
    span.end()


def odd_values(span: Span) -> None:
    span.set_attributes({"names": ["a", "b"], "nothing": None, "raw": b"\x00", "map": {"a": 1}, "": "no key"})
    span.set_attribute("share", 0.5)
    span.end()


def too_much(span: Span) -> None:
    for number in range(200):
        span.set_attribute(f"atp.number_{number}", number)
        span.add_event("again", {"number": number}, timestamp=1)
    span.end()


def fine_after_all(span: Span) -> None:
    span.set_status(Status(StatusCode.ERROR, "it failed"))
    span.set_status(StatusCode.UNSET)
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")
    span.end()


def ended_before(span: Span) -> None:
    span.end()
    span.set_status(StatusCode.ERROR)
    span.add_event("late")
    span.record_exception(ERROR)
    answered(span)


REQUESTS = [answered, failed, unforeseen, renamed, odd_values, too_much, fine_after_all, ended_before]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
def test_what_a_request_says_of_itself_is_exported_as_the_librarys(request_: Callable[[Span], None]) -> None:
    ours, librarys = sides(1.0)
    for side in (ours, librarys):
        span = side.start("POST")
        assert span.is_recording()
        request_(span)
        assert not span.is_recording()
        assert len(side.ended()) == 1
    assert_same(ours, librarys)


CALLERS = {
    "no caller": None,
    "not sampled": SpanContext(CALLER, 0xF067, True, TraceFlags(0)),
    "sampled": SpanContext(CALLER, 0xF067, True, TraceFlags(1)),
    "sampled, random": SpanContext(CALLER, 0xF067, True, TraceFlags(3)),
    "with a tracestate": SpanContext(CALLER, 0xF067, True, TraceFlags(1), TraceState([("vendor", "7")])),
    "invalid": SpanContext(0, 0, True, TraceFlags(1)),
    "local": SpanContext(CALLER, 0xF067, False, TraceFlags(1)),
}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_a_trace_goes_on_and_is_taken_as_the_library_decides(caller: SpanContext | None, share: float) -> None:
    ours, librarys = sides(share)
    for _ in range(50):
        span, expected = ours.start("GET", caller), librarys.start("GET", caller)
        assert span.get_span_context() == expected.get_span_context()
        assert span.is_recording() == expected.is_recording()
        answered(span)
        answered(expected)
    assert_same(ours, librarys)


@pytest.mark.parametrize(("share", "taken"), [(0.0, 0), (0.5, 97), (1.0, 200)])
def test_of_200_traces_its_share_is_taken(share: float, taken: int) -> None:
    ours, _ = sides(share)
    for _ in range(200):
        answered(ours.start("GET"))
    assert len(ours.ended()) == taken


LINKS = [Link(SpanContext(CALLER, 0xF067, True)), Link(SpanContext(0, 0, True)), Link(SpanContext(CALLER, 1, False))]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("links", [[], LINKS, LINKS * 50], ids=["none", "some", "too many"])
def test_children_with_links_are_exported_as_the_librarys(share: float, links: list[Link]) -> None:
    ours, librarys = sides(share)
    for _ in range(20):
        for side in (ours, librarys):
            parent = side.start("GET")
            side.child(parent, links).end()
            parent.end()
    assert_same(ours, librarys)


def fail_inside(tracer: OtelTracer, record: bool) -> None:
    with tracer.start_as_current_span("x", record_exception=record, set_status_on_exception=record) as span:
        assert get_current_span() is span
        raise ERROR


def test_a_block_that_fails_leaves_its_error_as_the_librarys_does() -> None:
    for side in (found := sides(1.0)):
        for record in (True, False):
            with pytest.raises(ValueError, match="no such thing"):
                fail_inside(side.ours or side.tracer, record)
        assert not get_current_span().is_recording()
    ours, librarys = ([span_of(span) for span in side.ended()] for side in found)
    assert ours == librarys


def span_of(span: Any) -> tuple[Any, ...]:
    return span.status.status_code, span.status.description, len(span.events)


def test_a_callers_wish_to_be_sampled_is_granted_so_often_and_then_by_the_share() -> None:
    now = [0.0]
    wish = CallersWish(0.0, 3, lambda: now[0])
    granted = lambda: wish.should_sample(None, 1, "GET").decision.is_sampled()  # noqa: E731
    assert [granted() for _ in range(5)] == [True, True, True, False, False]
    now[0] = 60.0
    assert granted()
    often = CallersWish(0.5, 0)
    assert 350 < sum(often.should_sample(None, 1, "GET").decision.is_sampled() for _ in range(1000)) < 650


def test_a_flood_of_requests_that_want_to_be_sampled_is_bounded() -> None:
    tracing = traces(
        otel_exporter_otlp_endpoint="http://127.0.0.1:1",
        otel_traces_sampler_arg=0.0,
        otel_traces_callers_per_minute=100,
    )
    # An id that the share would take, were it 0.01: the attacker chooses it.
    header = [(b"traceparent", b"00-%032x-00f067aa0ba902b7-01" % 1)]
    spans = [tracing.start_request_span("GET", parent_context(header)) for _ in range(1000)]
    assert 100 <= sum(span.is_recording() for span in spans) <= 200  # the minute may turn meanwhile
    tracing.close()


def test_what_begins_while_it_is_current_is_its_child() -> None:
    ours, _ = sides(1.0)
    request = ours.start("GET", CALLERS["sampled"])
    with use_span(request):
        ours.ours.start_span("chat good", kind=SpanKind.CLIENT).end()
    request.end()
    child, parent = ours.ended()
    assert request.get_span_context().trace_id == CALLER
    assert child.parent == request.get_span_context()
    assert parent.parent == CALLERS["sampled"]


def test_a_request_without_a_caller_begins_a_trace_whatever_is_current() -> None:
    for share in (0.5, 1.0):
        ours, _ = sides(share)
        with use_span(NonRecordingSpan(SpanContext(CALLER, 0xF067, True, TraceFlags(1)))):
            assert ours.start("GET").get_span_context().trace_id not in (0, CALLER)


def test_it_lasts_from_its_start_to_its_end() -> None:
    ours, _ = sides(1.0)
    ours.start("GET").end(end_time=2**62)
    (span,) = ours.ended()
    assert 1.7e18 < (span.start_time or 0) < 2**62
    assert span.end_time == 2**62


def traces(**settings: Any) -> Tracing:
    return Tracing(load().model_copy(update=settings), Process("1.2.3", "node", "node-1"), lambda lost: None)


def test_without_a_collector_there_are_no_ids_but_the_callers() -> None:
    start = traces().start_request_span
    alone = start("GET", None)
    assert (alone.is_recording(), alone.get_span_context().is_valid) == (False, False)
    called = start("GET", parent_context([(b"traceparent", b"00-%032x-00f067aa0ba902b7-01" % CALLER)]))
    assert (called.is_recording(), called.get_span_context().trace_id) == (False, CALLER)


def test_with_a_collector_requests_have_spans_of_ours() -> None:
    tracing = traces(otel_exporter_otlp_endpoint="http://127.0.0.1:1")
    assert isinstance(tracing.start_request_span("GET", None), RecordedSpan)
    tracing.close()


async def test_an_unhandled_error_is_in_the_requests_span(
    told: RunningNode, collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("service.agents.runner.Runner.complete", explode)
    await told.http.post("/api/v1/chat", json={"agent": "reasoning", "task": "x", "model": "good"})
    await eventually(lambda: any(span.events for span in collector.spans()), within_s=10)
    (span,) = [span for span in collector.spans() if span.events]
    assert (span.name, span.status.code) == ("POST /api/v1/chat", span.status.STATUS_CODE_ERROR)
    (event,) = span.events
    assert event.name == "exception"
    assert {a.key: a.value.string_value for a in event.attributes}["exception.type"] == "RuntimeError"


def test_the_resource_says_which_process_it_is() -> None:
    about = dict(resource(load(environment="staging"), Process("1.2.3", "worker", "host:7")).attributes)
    assert {key: about[key] for key in about if not key.startswith("telemetry.")} == {
        "service.name": "atp",
        "service.version": "1.2.3",
        "service.instance.id": "host:7",
        "deployment.environment.name": "staging",
        "atp.role": "worker",
    }


def test_what_the_operator_says_of_the_resource_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=chat,service.instance.id=pod-1,cloud.region=north")
    about = resource(load(), Process("1.2.3", "node", "host:7")).attributes
    assert [about[key] for key in ("service.name", "service.instance.id", "cloud.region")] == ["chat", "pod-1", "north"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-eu")
    assert resource(load(), Process("1.2.3", "node", "host:7")).attributes["service.name"] == "chat-eu"


@pytest.mark.parametrize("sampled", [True, False])
def test_a_run_is_sampled_as_the_request_that_asked_for_it(sampled: bool) -> None:
    ours, _ = sides(0.5)
    asked = Link(SpanContext(CALLER, 0xF067, True, TraceFlags(sampled)))
    runs = [ours.run(asked) for _ in range(50)]
    assert {run.is_recording() for run in runs} == {sampled}


def test_a_run_that_nobody_traced_is_sampled_by_the_share() -> None:
    ours, _ = sides(0.5)
    nobody = Link(SpanContext(0, 0, True))
    runs = [ours.run(nobody) for _ in range(50)]
    assert {run.is_recording() for run in runs} == {True, False}
