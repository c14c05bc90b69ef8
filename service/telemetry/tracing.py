"""OpenTelemetry traces over OTLP/HTTP; without a collector configured every call here is a no-op."""

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from service.settings import Settings
from service.telemetry.allowance import Allowance
from service.telemetry.span_queue import Send, SpanQueue
from service.telemetry.spans import Spans, StartRequestSpan

# A batch that a silent collector does not take holds the queue's thread, and at the end the exit, for so long.
EXPORT_TIMEOUT_S = 3


class Process(NamedTuple):
    """Whose traces these are: its role is `node` or `worker`, its name one of its own in the fleet."""

    version: str
    role: str
    name: str


class Tracing:
    """A tracer, and the way of its spans to the collector; its thread starts here, so build it after any fork."""

    def __init__(self, settings: Settings, process: Process, dropped: Callable[[int], None]) -> None:
        self._queue: SpanQueue | None = None
        self.tracer: trace.Tracer = trace.NoOpTracer()
        self.start_request_span: StartRequestSpan = self.tracer.start_span
        if settings.otel_exporter_otlp_endpoint and isinstance(librarys := tracer(settings, process), Tracer):
            self._queue = SpanQueue(sender(settings), dropped)
            self.tracer = spans = Spans(librarys, settings.otel_traces_sampler_arg, self._queue.put)
            self.start_request_span = spans.start_request_span

    def close(self) -> None:
        """Send what is queued, for a few seconds. Blocks, so call it off the loop."""
        if self._queue:
            self._queue.close(EXPORT_TIMEOUT_S)


def sender(settings: Settings) -> Send:
    from service.telemetry.otlp import Exporter

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    return Exporter(endpoint=url, timeout=EXPORT_TIMEOUT_S).send


def tracer(settings: Settings, process: Process) -> trace.Tracer:
    """The library's; one that does nothing where OTEL_SDK_DISABLED says so."""
    provider = TracerProvider(
        sampler=sampler(settings.otel_traces_sampler_arg, settings.otel_traces_callers_per_minute),
        resource=resource(settings, process),
        shutdown_on_exit=False,
    )
    return provider.get_tracer("atp", process.version)


def resource(settings: Settings, process: Process) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before what we know ourselves.

    Nodes and workers are one service: whoever looks for its traces by the name finds all of them.
    """
    known = {
        "service.name": "atp",
        "service.version": process.version,
        "service.instance.id": process.name,
        "deployment.environment.name": settings.environment,
        "atp.role": process.role,
    }
    return Resource.create({**known, **OTELResourceDetector().detect().attributes})


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
