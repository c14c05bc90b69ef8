"""OTLP/HTTP with protobuf, as the library sends it, with spans put into bytes by ourselves.

Every request has a span, and the library takes three times as long for it, under the interpreter's lock, which the loop
wants. Here what repeats (names, attributes) is encoded once and joined. Anything beyond a plain span is left to the
library: events, links, a status, attributes that are lists. The tests hold both against each other.

Field numbers are those of opentelemetry-proto 1.x, trace.proto; tags and lengths are protobuf's wire format
(https://protobuf.dev/programming-guides/encoding/).
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, StatusCode

REMEMBERED = 4096
KINDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}  # of AnyValue
# Span: trace_id 1, span_id 2, parent_span_id 4, name 5, kind 6, both times 7 and 8, attributes 9, status 15, flags 16.
TRACE_ID, SPAN_ID, PARENT_ID, KIND = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x30"
NAME, ATTRIBUTE = 5, 9
TIMES = struct.Struct("<cQcQ")
STARTS, ENDS = b"\x39", b"\x41"
UNSET_STATUS = b"\x7a\x00"
FLAGS = {remote: b"\x85\x01" + struct.pack("<I", 0x300 if remote else 0x100) for remote in (False, True)}
# ExportTraceServiceRequest: resource_spans 1; ResourceSpans: scope_spans 2; ScopeSpans: scope 1, spans 2.
RESOURCE_SPANS, SCOPE_SPANS, SCOPE, SPANS = 1, 2, 1, 2


class Exporter(OTLPSpanExporter):
    """`_client` is the library's own sender, with its retries; the library's version is pinned."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._client.export(encoded(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest. Spans of several tracers or resources are the library's."""
    first = spans[0]
    if any(span.instrumentation_scope is not first.instrumentation_scope for span in spans):
        return bytes(encode_spans(spans).SerializeToString())
    of_resource, of_scope = surroundings(first)
    in_scope = b"".join([of_scope, *map(of_span, spans)])
    return delimited(RESOURCE_SPANS, of_resource + delimited(SCOPE_SPANS, in_scope))


def surroundings(span: ReadableSpan) -> tuple[bytes, bytes]:
    """The fields beside the spans, of ResourceSpans and ScopeSpans."""
    whole: ResourceSpans = encode_spans([span]).resource_spans[0]
    scope = whole.scope_spans[0].scope.SerializeToString()
    del whole.scope_spans[:]
    return whole.SerializeToString(), delimited(SCOPE, scope)


def of_span(span: ReadableSpan) -> bytes:
    """As an element of ScopeSpans."""
    context, attributes = span.context, span.attributes or {}
    if not (context and plain(span, context)):
        return delimited(SPANS, encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].SerializeToString())
    parent = span.parent
    parts = [
        TRACE_ID + context.trace_id.to_bytes(16, "big"),
        SPAN_ID + context.span_id.to_bytes(8, "big"),
        PARENT_ID + parent.span_id.to_bytes(8, "big") if parent else b"",
        of_name(span.name),
        KIND + bytes((span.kind.value + 1,)),
        TIMES.pack(STARTS, span.start_time or 0, ENDS, span.end_time or 0),
        *(of_attribute(key, value) for key, value in attributes.items()),
        UNSET_STATUS,
        FLAGS[bool(parent and parent.is_remote)],
    ]
    return delimited(SPANS, b"".join(parts))


def plain(span: ReadableSpan, context: SpanContext) -> bool:
    if span.events or span.links or context.trace_state or span.dropped_attributes:
        return False
    if span.status.status_code is not StatusCode.UNSET:
        return False
    return all(type(value) in KINDS for value in (span.attributes or {}).values())


@lru_cache(REMEMBERED)
def of_name(name: str) -> bytes:
    return delimited(NAME, name.encode())


@lru_cache(REMEMBERED, typed=True)  # 1, 1.0 and True are three values
def of_attribute(key: str, value: str | bool | int | float) -> bytes:
    whole = KeyValue(key=key)
    setattr(whole.value, KINDS[type(value)], value)
    return delimited(ATTRIBUTE, whole.SerializeToString())


def delimited(number: int, data: bytes) -> bytes:
    """A field of bytes: its tag, their length as a varint, and they."""
    length, size = len(data), b""
    while length > 0x7F:
        size += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return b"%c%b%c%b" % (number << 3 | 2, size, length, data)
