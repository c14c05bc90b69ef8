"""OpenTelemetry traces over OTLP/HTTP; without a collector configured every call here is a no-op."""

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from service.settings import Settings
from service.telemetry.sentry import Allowance
from service.telemetry.spans import Spans, StartRequestSpan

QUEUE_SPANS = 8192
# Posting a batch costs as much as encoding a hundred spans, both under the interpreter's lock, which the loop wants:
# with batches of 128 every chat cost 40 to 60 us more. serving.py shortens the lock's turns, so the p99 is no worse.
BATCH_SPANS = 1024
BATCH_EVERY_MS = 1000
# A batch that a silent collector does not take holds the exporter's thread, and at the end the exit, for so long.
EXPORT_TIMEOUT_S = 3
CLOSE_S = 2.0


class Tracing:
    """A tracer and the provider behind it. The processor's thread starts here, so build it after any fork."""

    def __init__(self, settings: Settings, version: str, dropped: Callable[[int], None]) -> None:
        self._exporter: CountingExporter | None = None
        self._provider: TracerProvider | None = None
        if settings.otel_exporter_otlp_endpoint:
            self._exporter = CountingExporter(otlp_exporter(settings), dropped)
            self._provider = provider(settings, version)
            self._provider.add_span_processor(CountingProcessor(self._exporter, dropped))
        self.tracer = (self._provider or trace.NoOpTracerProvider()).get_tracer("atp", version)
        self.start_request_span: StartRequestSpan = self.tracer.start_span
        if isinstance(self.tracer, Tracer):  # the SDK's; what does nothing is light enough
            self.tracer = spans = Spans(self.tracer, settings.otel_traces_sampler_arg)
            self.start_request_span = spans.start_request_span

    def close(self) -> None:
        """Send what is queued; no batch is begun after CLOSE_S. Blocks, so call it off the loop.

        The SDK's own flush ignores its timeout, and its shutdown waits 30 s for a collector that is silent.
        """
        if self._exporter and self._provider:
            self._exporter.ends_at = time.monotonic() + CLOSE_S
            self._provider.shutdown()


def otlp_exporter(settings: Settings) -> SpanExporter:
    from service.telemetry.otlp import Exporter

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    return Exporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)


def provider(settings: Settings, version: str) -> TracerProvider:
    about = {"service.name": "atp", "service.version": version, "deployment.environment.name": settings.environment}
    return TracerProvider(
        sampler=sampler(settings.otel_traces_sampler_arg, settings.otel_traces_callers_per_minute),
        resource=Resource.create(about),
        shutdown_on_exit=False,
    )


def sampler(share: float, callers_per_minute: int) -> Sampler:
    """The caller's decision where there is one, else this share of traces."""
    if share == 1.0:
        return ParentBased(ALWAYS_ON)
    return ParentBased(TraceIdRatioBased(share), remote_parent_sampled=CallersWish(share, callers_per_minute))


class CallersWish(Sampler):
    """For callers that say "sampled": granted so many times a minute. Anybody may say so, on each of his requests.

    Beyond that the share decides, by a die of our own: the library would go by the trace's id, which the caller chose.
    """

    def __init__(self, share: float, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._per_minute = share, per_minute
        self._allowance = Allowance(per_minute, clock)

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *more: Any, **others: Any
    ) -> SamplingResult:
        granted = self._allowance.take() or random.random() < self._share  # noqa: S311 - sampling
        return (ALWAYS_ON if granted else ALWAYS_OFF).should_sample(parent_context, trace_id, name, *more, **others)

    def get_description(self) -> str:
        return f"CallersWish{{{self._share},{self._per_minute} a minute}}"


class CountingExporter(SpanExporter):
    """Knows how many spans it was handed, and counts those that the collector did not take."""

    def __init__(self, inner: SpanExporter, dropped: Callable[[int], None]) -> None:
        self._inner, self._dropped = inner, dropped
        self.taken = 0
        self.ends_at = math.inf

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        late = time.monotonic() > self.ends_at
        result = SpanExportResult.FAILURE if late else self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._dropped(len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class CountingProcessor(BatchSpanProcessor):
    """A batch processor that counts the spans that found its queue full."""

    def __init__(self, exporter: CountingExporter, dropped: Callable[[int], None]) -> None:
        self._counting, self._dropped = exporter, dropped
        # Two counters, each written by one thread only: the loop ends spans, the exporter's thread takes them.
        self._ended = 0
        super().__init__(
            exporter,
            max_queue_size=QUEUE_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=BATCH_EVERY_MS,
        )

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._ended - self._counting.taken >= QUEUE_SPANS:
            self._dropped(1)
            return
        self._ended += 1
        super().on_end(span)
