"""Spans as bytes: what a collector reads is what the library would have sent."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from service.telemetry.otlp import encoded
from service.telemetry.spans import RecordedSpan, Spans

REMOTE = SpanContext(0xABCDEF, 0x123456, is_remote=True, trace_flags=TraceFlags(1))


class Recording:
    """A tracer, and the spans that it has ended."""

    def __init__(self) -> None:
        librarys = TracerProvider(resource=Resource.create({"service.name": "atp"}), shutdown_on_exit=False)
        self._kept: list[RecordedSpan] = []
        tracer = librarys.get_tracer("atp", "1.2.3")
        assert isinstance(tracer, Tracer)
        self.tracer = Spans(tracer, 1.0, self._kept.append)

    def spans(self) -> list[RecordedSpan]:
        found = list(self._kept)
        self._kept.clear()
        return found


@pytest.fixture
def recording() -> Recording:
    return Recording()


def assert_same(spans: list[RecordedSpan]) -> None:
    expected = encode_spans([span.readable() for span in spans])
    assert ExportTraceServiceRequest.FromString(encoded(spans)) == expected


def test_a_requests_span_is_encoded_as_the_library_does_it(recording: Recording) -> None:
    span = recording.tracer.start_span("POST", kind=SpanKind.SERVER)
    span.update_name("POST /api/v1/chat")
    span.set_attributes({"http.route": "/api/v1/chat", "http.response.status_code": 200, "warm": True, "share": 0.5})
    span.end()
    assert_same(recording.spans())


def test_children_and_callers_from_elsewhere_keep_their_parents(recording: Recording) -> None:
    with recording.tracer.start_as_current_span("parent"):
        recording.tracer.start_span("child", kind=SpanKind.CLIENT).end()
    recording.tracer.start_span("far", context=set_span_in_context(NonRecordingSpan(REMOTE))).end()
    assert_same(recording.spans())


def test_whatever_is_not_plain_is_the_librarys(recording: Recording) -> None:
    failed = recording.tracer.start_span("failed", links=[Link(REMOTE)], attributes={"names": ["a", "b"]})
    failed.record_exception(ValueError("no"))
    failed.set_status(StatusCode.ERROR, "it failed")
    failed.end()
    recording.tracer.start_span("plain").end()
    assert_same(recording.spans())


def test_the_same_value_of_three_types_stays_three_values(recording: Recording) -> None:
    for value in (1, 1.0, True, "1"):
        recording.tracer.start_span("one", attributes={"value": value}).end()
    assert_same(recording.spans())


VALUES = st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
ATTRIBUTES = st.dictionaries(st.text(min_size=1), VALUES, max_size=40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(), st.sampled_from(SpanKind), ATTRIBUTES), min_size=1, max_size=5))
def test_any_names_kinds_and_attributes(recording: Recording, given_spans: list[tuple[str, SpanKind, Any]]) -> None:
    for name, kind, attributes in given_spans:
        recording.tracer.start_span(name, kind=kind, attributes=attributes).end()
    assert_same(recording.spans())
