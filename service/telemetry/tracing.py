"""OpenTelemetry traces over OTLP/HTTP; without a collector configured every call here is a no-op."""

from collections.abc import Callable, Sequence

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from service.settings import Settings

QUEUE_SPANS = 8192
# Encoding is Python under the interpreter's lock, 45 us a span: small batches, so that requests get their turn.
BATCH_SPANS = 128
BATCH_EVERY_MS = 1000
EXPORT_TIMEOUT_S = 5
SHUTDOWN_MS = 2000


class Tracing:
    """A tracer and the provider behind it. The processor's thread starts here, so build it after any fork."""

    def __init__(self, settings: Settings, version: str, dropped: Callable[[int], None]) -> None:
        self.provider: TracerProvider | None = None
        if settings.otel_exporter_otlp_endpoint:
            self.provider = provider(settings, version, dropped)
        source = self.provider or trace.NoOpTracerProvider()
        self.tracer = source.get_tracer("atp", version)

    def close(self) -> None:
        """Send what is queued, for at most SHUTDOWN_MS; blocks, so call it off the loop."""
        if self.provider:
            self.provider.force_flush(SHUTDOWN_MS)
            self.provider.shutdown()


def provider(settings: Settings, version: str, dropped: Callable[[int], None]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
    resource = Resource.create(
        {"service.name": "atp", "service.version": version, "deployment.environment.name": settings.environment}
    )
    made = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.otel_traces_sampler_arg)),
        resource=resource,
        span_limits=SpanLimits(max_attribute_length=1024),
        shutdown_on_exit=False,
    )
    made.add_span_processor(CountingProcessor(exporter, dropped))
    return made


class CountingProcessor(BatchSpanProcessor):
    """A batch processor that counts what it loses: spans that found the queue full, and batches not accepted."""

    def __init__(self, exporter: SpanExporter, dropped: Callable[[int], None]) -> None:
        self._dropped = dropped
        # Two counters, each written by one thread only: the loop ends spans, the exporter's thread takes them.
        self._ended = self._taken = 0
        super().__init__(
            CountingExporter(exporter, self._take, dropped),
            max_queue_size=QUEUE_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=BATCH_EVERY_MS,
        )

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._ended - self._taken >= QUEUE_SPANS:
            self._dropped(1)
            return
        self._ended += 1
        super().on_end(span)

    def _take(self, spans: int) -> None:
        self._taken += spans


class CountingExporter(SpanExporter):
    """Reports how many spans it was handed and how many of them the collector did not take."""

    def __init__(self, inner: SpanExporter, taken: Callable[[int], None], dropped: Callable[[int], None]) -> None:
        self._inner, self._taken, self._dropped = inner, taken, dropped

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        self._taken(len(spans))
        if result is not SpanExportResult.SUCCESS:
            self._dropped(len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()
