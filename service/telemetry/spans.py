"""Spans made by ourselves: the library's cost four times as much, and a request has several.

Ours have no locks (a span is used on the loop alone) and no room prepared for events, which nearly none has; each
becomes the library's ReadableSpan once, at its end. Sampler, ids and what is exported are the library's: the tests hold
both against each other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import time_ns
from traceback import format_exception

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util import BoundedList
from opentelemetry.semconv.attributes import exception_attributes as of_exception
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.util.types import AnyValue, Attributes

# The span's name, and the caller's context: None or an empty one begins a trace, whatever span is current.
StartRequestSpan = Callable[[str, Context | None], Span]

LIMIT = 128  # the specification's, for a span's attributes, links and events, and an event's attributes
PLAIN = frozenset((str, bool, int, float))  # what is exported as it is; other values the library makes into such
UNSET = Status()
ROOT = Context()


class Spans(Tracer):
    """Starts them as the library's tracer would. `share`: the share of traces that its sampler takes."""

    def __init__(self, tracer: sdk.Tracer, share: float) -> None:
        ids = tracer.id_generator
        self._trace_id, self._span_id, self._sampler = ids.generate_trace_id, ids.generate_span_id, tracer.sampler
        self._all = share == 1.0
        self._random = ids.is_trace_id_random()
        self._sampled = flags(True, self._random)
        # otlp.py joins spans of one scope by its identity; the library's version is pinned.
        self.resource, self.scope = tracer.resource, tracer._instrumentation_scope
        self.on_end = tracer.span_processor.on_end

    def start_request_span(self, name: str, context: Context | None) -> Span:
        """Of a caller elsewhere, or of none, whatever span is current."""
        if self._all and not context:  # nothing to decide
            own = SpanContext(self._trace_id(), self._span_id(), False, self._sampled)
            return RecordedSpan(self, name, SpanKind.SERVER, own, None)
        return self._decide(name, context or ROOT, SpanKind.SERVER)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """As the library's. The last two are for `start_as_current_span`."""
        span = self._decide(name, context, kind)
        if isinstance(span, RecordedSpan):
            span.set_attributes(attributes or {})
            span.add_links(links or ())
            span.began_ns = start_time or span.began_ns
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # the library's may decorate coroutines too
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        """As the library's."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span

    def child(self, name: str, kind: SpanKind, parent: SpanContext) -> "RecordedSpan":
        """Of a span that is recorded, so there is nothing to decide."""
        own = SpanContext(parent.trace_id, self._span_id(), False, parent.trace_flags, parent.trace_state)
        return RecordedSpan(self, name, kind, own, parent)

    def _decide(self, name: str, context: Context | None, kind: SpanKind) -> Span:
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if parent and not parent.is_valid:
            parent = None
        trace_id = parent.trace_id if parent else self._trace_id()
        result = self._sampler.should_sample(context, trace_id, name, kind)
        taken = result.decision is Decision.RECORD_AND_SAMPLE
        random = parent.trace_flags.random_trace_id if parent else self._random
        own = SpanContext(trace_id, self._span_id(), False, flags(taken, random), result.trace_state)
        return RecordedSpan(self, name, kind, own, parent) if taken else NonRecordingSpan(own)


def flags(sampled: bool, random: bool) -> TraceFlags:
    return TraceFlags(TraceFlags.SAMPLED * sampled | TraceFlags.RANDOM_TRACE_ID * random)


class RecordedSpan(Span):
    """Recorded until `end`; after it nothing changes it. For one thread."""

    __slots__ = (
        "_attributes",
        "_context",
        "_events",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_recording",
        "_spans",
        "_status",
        "began_ns",
    )

    def __init__(
        self, spans: Spans, name: str, kind: SpanKind, context: SpanContext, parent: SpanContext | None
    ) -> None:
        self._spans, self._name, self._kind, self._context, self._parent = spans, name, kind, context, parent
        self._attributes: dict[str, AnyValue] = {}
        self._events: BoundedList[Event] | None = None
        self._links: Sequence[Link] = ()
        self._status, self._recording = UNSET, True
        self.began_ns = time_ns()

    def get_span_context(self) -> SpanContext:
        return self._context

    def child(self, name: str, kind: SpanKind) -> "RecordedSpan":
        return self._spans.child(name, kind, self._context)

    def is_recording(self) -> bool:
        return self._recording

    def add_links(self, links: Sequence[Link]) -> None:
        if links:
            self._links = BoundedList.from_seq(LIMIT, [*self._links, *filter(known, links)])

    def update_name(self, name: str) -> None:
        if self._recording:
            self._name = name

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if self._recording:
            self._attributes.update(attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """OK stays, and UNSET changes nothing (OpenTelemetry, Trace API, Set Status)."""
        new = status if isinstance(status, Status) else Status(status, description)
        final = self._status.status_code is StatusCode.OK
        if self._recording and not final and new.status_code is not StatusCode.UNSET:
            self._status = new

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """`timestamp`: in ns since the epoch."""
        if self._recording:
            self._events = self._events or BoundedList(LIMIT)
            self._events.append(Event(name, BoundedAttributes(LIMIT, attributes), timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """OpenTelemetry's conventions for exceptions, as the library writes them."""
        kind = type(exception)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        of_it: dict[str, AnyValue] = {
            of_exception.EXCEPTION_TYPE: module + kind.__qualname__,
            of_exception.EXCEPTION_MESSAGE: str(exception),
            of_exception.EXCEPTION_STACKTRACE: "".join(format_exception(exception)),
            "exception.escaped": str(escaped),  # deprecated, and still the library's
        }
        self.add_event("exception", {**of_it, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """`end_time`: in ns since the epoch. The first call counts."""
        if self._recording:
            self._recording = False
            self._spans.on_end(self._readable(end_time or time_ns()))

    def _readable(self, ended: int) -> ReadableSpan:
        events: Sequence[Event] = self._events or ()
        return ReadableSpan(
            self._name,
            self._context,
            self._parent,
            self._spans.resource,
            limited(self._attributes),
            events,
            self._links,
            kind=self._kind,
            status=self._status,
            start_time=self.began_ns,
            end_time=ended,
            instrumentation_scope=self._spans.scope,
        )


def known(link: Link) -> bool:
    return link.context.is_valid or bool(link.attributes or link.context.trace_state)


def limited(attributes: dict[str, AnyValue]) -> Attributes:
    """What the library's limits and cleaning leave of them: few and plain ones, as ours are, stay as they are."""
    if len(attributes) <= LIMIT and PLAIN.issuperset(map(type, attributes.values())):
        return attributes
    return BoundedAttributes(LIMIT, attributes)
