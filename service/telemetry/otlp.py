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
from opentelemetry.trace import SpanKind, StatusCode

from service.telemetry.spans import RecordedSpan

REMEMBERED = 4096
KINDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}  # of AnyValue
# Span: trace_id 1, span_id 2, parent_span_id 4, name 5, kind 6, both times 7 and 8, attributes 9, status 15, flags 16.
TRACE_ID, SPAN_ID, PARENT_ID, KIND = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x30"
NAME, ATTRIBUTE = 5, 9
TIMES = struct.Struct("<cQcQ")
STARTS, ENDS = b"\x39", b"\x41"
# And, at its end, a status that is unset.
FLAGS = {remote: b"\x7a\x00\x85\x01" + struct.pack("<I", 0x300 if remote else 0x100) for remote in (False, True)}
# ExportTraceServiceRequest: resource_spans 1; ResourceSpans: scope_spans 2; ScopeSpans: scope 1, spans 2.
RESOURCE_SPANS, SCOPE_SPANS, SCOPE, SPANS = 1, 2, 1, 2


class Exporter(OTLPSpanExporter):
    """`_client` is the library's own sender, with its retries; the library's version is pinned."""

    def send(self, spans: Sequence[RecordedSpan]) -> bool:
        """False: nobody took them."""
        return self._client.export(encoded(spans)).success


def encoded(spans: Sequence[RecordedSpan]) -> bytes:
    """An ExportTraceServiceRequest. They are of one tracer."""
    of_resource, of_scope = surroundings(spans[0])
    in_scope = b"".join([of_scope, *map(of_span, spans)])
    return delimited(RESOURCE_SPANS, of_resource + delimited(SCOPE_SPANS, in_scope))


def surroundings(span: RecordedSpan) -> tuple[bytes, bytes]:
    """The fields beside the spans, of ResourceSpans and ScopeSpans."""
    whole: ResourceSpans = encode_spans([span.readable()]).resource_spans[0]
    scope = whole.scope_spans[0].scope.SerializeToString()
    del whole.scope_spans[:]
    return whole.SerializeToString(), delimited(SCOPE, scope)


def of_span(span: RecordedSpan) -> bytes:
    """As an element of ScopeSpans."""
    parent, attributes = span.parent, span.attributes
    of = parent or span.get_span_context()
    unusual = span.events or span.links or of.trace_state or span.status.status_code is not StatusCode.UNSET
    if unusual or not span.plain():
        whole = encode_spans([span.readable()]).resource_spans[0].scope_spans[0].spans[0]
        return delimited(SPANS, whole.SerializeToString())
    parts = (
        TRACE_ID + of.trace_id.to_bytes(16),
        SPAN_ID + span.span_id.to_bytes(8),
        PARENT_ID + parent.span_id.to_bytes(8) if parent else b"",
        of_name(span.name, span.kind),
        TIMES.pack(STARTS, span.began_ns, ENDS, span.ended_ns),
        *map(of_attribute, attributes, attributes.values()),
        FLAGS[bool(parent and parent.is_remote)],
    )
    return delimited(SPANS, b"".join(parts))


@lru_cache(REMEMBERED)
def of_name(name: str, kind: SpanKind) -> bytes:
    return delimited(NAME, name.encode()) + KIND + bytes((kind.value + 1,))


@lru_cache(REMEMBERED, typed=True)  # 1, 1.0 and True are three values
def of_attribute(key: str, value: str | bool | int | float) -> bytes:
    whole = KeyValue(key=key)
    setattr(whole.value, KINDS[type(value)], value)
    return delimited(ATTRIBUTE, whole.SerializeToString())


def delimited(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return head(number, len(data)) + data


@lru_cache(REMEMBERED)
def head(number: int, length: int) -> bytes:
    """What stands before its bytes: its tag, and their length as a varint."""
    size = b""
    while length > 0x7F:
        size += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return b"%c%b%c" % (number << 3 | 2, size, length)
