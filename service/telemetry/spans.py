"""Spans made by ourselves: the library's cost four times as much, and a request has several.

Ours have no locks (a span is used on the loop alone), no room prepared for events, which nearly none has, and a context
only where somebody asks. Sampler, ids and what is exported are the library's: the tests hold both against each other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import time_ns

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util import BoundedList
from opentelemetry.semconv.attributes import exception_attributes as of_exception
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
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

from service.telemetry.scrubbing import class_of, stack_of, text_of

# The span's name, and the caller's context: None or an empty one begins a trace, whatever span is current.
StartRequestSpan = Callable[[str, Context | None], Span]

LIMIT = 128  # the specification's, for a span's attributes, links and events, and an event's attributes
PLAIN = frozenset((str, bool, int, float))  # what is exported as it is; other values the library makes into such
UNSET = Status()
ROOT = Context()


class Spans(Tracer):
    """Starts them as the library's tracer would. `share`: the share of traces that its sampler takes."""

    def __init__(self, tracer: sdk.Tracer, share: float, on_end: Callable[["RecordedSpan"], None]) -> None:
        ids = tracer.id_generator
        self._trace_id, self.span_id, self._sampler = ids.generate_trace_id, ids.generate_span_id, tracer.sampler
        self._all = share == 1.0
        self._random = ids.is_trace_id_random()
        self._sampled = flags(True, self._random)
        # The library's version is pinned.
        self.resource, self.scope = tracer.resource, tracer._instrumentation_scope
        self.on_end = on_end

    def start_request_span(self, name: str, context: Context | None) -> Span:
        """Of a caller elsewhere, or of none, whatever span is current."""
        if self._all and not context:  # nothing to decide
            own = SpanContext(self._trace_id(), self.span_id(), False, self._sampled)
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
        span = self._decide(name, context, kind, links or ())
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

    def _decide(self, name: str, context: Context | None, kind: SpanKind, links: Sequence[Link] = ()) -> Span:
        """What begins a trace and links to another is taken if that was: a task's run is found from its request."""
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if parent and not parent.is_valid:
            parent = None
        trace_id = parent.trace_id if parent else self._trace_id()
        result = self._sampler.should_sample(context, trace_id, name, kind)
        taken = result.decision is Decision.RECORD_AND_SAMPLE
        if parent is None and (linked := next((link.context for link in links if link.context.is_valid), None)):
            taken = linked.trace_flags.sampled
        random = parent.trace_flags.random_trace_id if parent else self._random
        own = SpanContext(trace_id, self.span_id(), False, flags(taken, random), result.trace_state)
        return RecordedSpan(self, name, kind, own, parent) if taken else NonRecordingSpan(own)


def flags(sampled: bool, random: bool) -> TraceFlags:
    return TraceFlags(TraceFlags.SAMPLED * sampled | TraceFlags.RANDOM_TRACE_ID * random)


class RecordedSpan(Span):
    """Recorded until `end`; after it nothing changes it. For one thread, and after its end for the exporter's.

    `context`: its own; None for the child of another, whose trace it shares.
    """

    __slots__ = (
        "_context",
        "_spans",
        "attributes",
        "began_ns",
        "ended_ns",
        "events",
        "kind",
        "links",
        "name",
        "parent",
        "span_id",
        "status",
    )

    def __init__(
        self, spans: Spans, name: str, kind: SpanKind, context: SpanContext | None, parent: SpanContext | None
    ) -> None:
        self._spans, self.name, self.kind, self._context, self.parent = spans, name, kind, context, parent
        self.span_id = context.span_id if context else spans.span_id()
        self.attributes: dict[str, AnyValue] = {}
        self.events: BoundedList[Event] | None = None
        self.links: Sequence[Link] = ()
        self.status, self.ended_ns = UNSET, 0
        self.began_ns = time_ns()

    def get_span_context(self) -> SpanContext:
        if self._context is None and (of := self.parent):
            self._context = SpanContext(of.trace_id, self.span_id, False, of.trace_flags, of.trace_state)
        return self._context or INVALID_SPAN_CONTEXT

    @property
    def trace_id(self) -> int:
        return (self.parent or self.get_span_context()).trace_id

    def child(self, name: str, kind: SpanKind) -> "RecordedSpan":
        """There is nothing to decide."""
        return RecordedSpan(self._spans, name, kind, None, self.get_span_context())

    def is_recording(self) -> bool:
        return not self.ended_ns

    def add_links(self, links: Sequence[Link]) -> None:
        if links:
            self.links = BoundedList.from_seq(LIMIT, [*self.links, *filter(known, links)])

    def update_name(self, name: str) -> None:
        if not self.ended_ns:
            self.name = name

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if not self.ended_ns:
            self.attributes.update(attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """OK stays, and UNSET changes nothing (OpenTelemetry, Trace API, Set Status)."""
        new = status if isinstance(status, Status) else Status(status, description)
        final = self.status.status_code is StatusCode.OK
        if not self.ended_ns and not final and new.status_code is not StatusCode.UNSET:
            self.status = new

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """`timestamp`: in ns since the epoch."""
        if not self.ended_ns:
            self.events = self.events or BoundedList(LIMIT)
            self.events.append(Event(name, BoundedAttributes(LIMIT, attributes), timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """OpenTelemetry's conventions for exceptions, as the library writes them, with their texts cleaned."""
        of_it: dict[str, AnyValue] = {
            of_exception.EXCEPTION_TYPE: class_of(exception),
            of_exception.EXCEPTION_MESSAGE: text_of(exception),
            of_exception.EXCEPTION_STACKTRACE: stack_of(exception),
            "exception.escaped": str(escaped),  # deprecated, and still the library's
        }
        self.add_event("exception", {**of_it, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """`end_time`: in ns since the epoch. The first call counts."""
        if not self.ended_ns:
            self.ended_ns = end_time or time_ns()
            self._spans.on_end(self)

    def readable(self) -> ReadableSpan:
        """The library's form of it, once it has ended."""
        events: Sequence[Event] = self.events or ()
        return ReadableSpan(
            self.name,
            self.get_span_context(),
            self.parent,
            self._spans.resource,
            self.attributes if self.plain() else BoundedAttributes(LIMIT, self.attributes),
            events,
            self.links,
            kind=self.kind,
            status=self.status,
            start_time=self.began_ns,
            end_time=self.ended_ns,
            instrumentation_scope=self._spans.scope,
        )

    def plain(self) -> bool:
        """Whether the library's limits and cleaning leave its attributes as they are."""
        return len(self.attributes) <= LIMIT and PLAIN.issuperset(map(type, self.attributes.values()))


def known(link: Link) -> bool:
    return link.context.is_valid or bool(link.attributes or link.context.trace_state)
