"""What a request does and waits for, as spans inside its own; only where that one is recorded.

Without a recorded span each of these costs a look at the context, half a microsecond. Background work has no span, so
what it asks of Redis and PostgreSQL is in the histograms alone.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType

from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, get_current_span
from prometheus_client import Histogram

from service.errors import AtpError
from service.telemetry.metrics import Metrics
from service.telemetry.spans import RecordedSpan

Exemplar = dict[str, str] | None


def recorded() -> RecordedSpan | None:
    """The current span, if it is recorded."""
    span = get_current_span()
    return span if isinstance(span, RecordedSpan) and span.is_recording() else None


def exemplar(span: RecordedSpan | None = None) -> Exemplar:
    """What leads from a bucket of a histogram to this trace, or the current one; None where it is not recorded."""
    found = span or recorded()
    return of_trace(found.trace_id) if found else None


@lru_cache(256)  # a request is in several histograms
def of_trace(trace_id: int) -> dict[str, str]:
    return {"trace_id": format(trace_id, "032x")}


def observe(histogram: Histogram, value: float) -> None:
    """With the current trace as its exemplar."""
    histogram.observe(value, exemplar())


def failed(span: RecordedSpan, error: BaseException) -> None:
    """What kind of error it was, and none of its words: a driver's may quote statements and addresses.

    Being cancelled is no error, nor is what the caller's own code found in an answer (NotFound).
    """
    found = isinstance(error, AtpError) and error.status < 500 and error.__cause__ is None
    if not (found or isinstance(error, asyncio.CancelledError | GeneratorExit)):
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", type(error.__cause__ or error).__name__)


def tell(**attributes: str) -> None:
    """Attributes of the current span, under `atp.`."""
    if span := recorded():
        span.set_attributes({f"atp.{name}": value for name, value in attributes.items()})


def tell_failure(code: str) -> None:
    """The current span's work has failed: the code of an error, and of its words none."""
    if span := recorded():
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", code)


class Operations:
    """Those on one system, by the names that `db_client_operation_duration_seconds` has: `with operations("get"): …`.

    `about`: the server's address, for the spans (OpenTelemetry's conventions for database clients).
    """

    def __init__(self, metrics: Metrics, system: str, about: Mapping[str, str | int]) -> None:
        self.durations, self.system = metrics.db_durations, system
        self._about = {"db.system.name": system, **about}

    def __call__(self, name: str) -> "Operation":
        return Operation(self, name)

    def span(self, name: str, parent: RecordedSpan) -> RecordedSpan:
        span = parent.child(f"{self.system} {name}", SpanKind.CLIENT)
        span.set_attributes({**self._about, "db.operation.name": name})
        return span


class Operation:
    """One of them: a context manager."""

    __slots__ = ("_name", "_of", "_started", "span")

    def __init__(self, of: Operations, name: str) -> None:
        self._of, self._name = of, name

    def __enter__(self) -> "Operation":
        parent = recorded()
        self.span = self._of.span(self._name, parent) if parent else None
        self._started = time.perf_counter()
        return self

    def waited(self, histogram: Histogram, seconds: float) -> None:
        """For a connection of the pool."""
        histogram.observe(seconds, exemplar(self.span) if self.span else None)
        if self.span:
            self.span.set_attribute("atp.pool_wait_ms", int(seconds * 1000))

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        span, found = self.span, None
        if span:
            found = exemplar(span)
            if error:
                failed(span, error)
            span.end()
        self._of.durations(self._of.system, self._name).observe(time.perf_counter() - self._started, found)


class Unseen:
    """The wait of a request that is not recorded."""

    def __enter__(self) -> "Unseen":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sent(self) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass


class SeenWait:
    """A span from the asking to the answer. `sent` is called when the round trip begins: `atp.queued_ms` of it had gone
    by."""

    __slots__ = ("_span",)

    def __init__(self, span: RecordedSpan) -> None:
        self._span = span

    def __enter__(self) -> "SeenWait":
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        if error:
            failed(self._span, error)
        self._span.end()

    def sent(self) -> None:
        self._span.set_attribute("atp.queued_ms", (time.time_ns() - self._span.began_ns) // 1_000_000)


Wait = SeenWait | Unseen
UNSEEN = Unseen()


def wait_for(name: str, whose: SpanContext | None = None) -> Wait:
    """A round trip that many requests share is nobody's own: its part in a request's time is the request's wait.

    `whose`: the span of another request, which does the work; the wait links to it.
    """
    if not (parent := recorded()):
        return UNSEEN
    span = parent.child(f"wait {name}", SpanKind.INTERNAL)
    if whose:
        span.add_links([Link(whose)])
    return SeenWait(span)
