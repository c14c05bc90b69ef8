"""What tasks have in the traces: the link to the request that made them, and each try of a callback."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.plain_url import place
from service.tasks.records import Task

PROPAGATOR = TraceContextTextMapPropagator()


def linked(task: Task) -> list[Link]:
    """To the request that made it: a task may run hours later, so it is no child of it."""
    carrier = {"traceparent": task.traceparent}
    context = get_current_span(PROPAGATOR.extract(carrier)).get_span_context() if task.traceparent else None
    return [Link(context)] if context and context.is_valid else []


@contextmanager
def delivery(tracer: Tracer, task: Task) -> Iterator[Span]:
    """The span of one try, by OpenTelemetry's conventions for HTTP clients, but for `url.full`: path and query may hold
    the receiver's secrets. An error's text may quote them too, so `failed` gives its word."""
    with tracer.start_as_current_span(
        "POST callback",
        kind=SpanKind.CLIENT,
        links=linked(task),
        attributes=about(task),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def failed(span: Span, reason: str) -> None:
    """`reason`: the receiver's status, or a word for what kept it from answering."""
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", reason)
    if reason.isdigit():
        span.set_attribute("http.response.status_code", int(reason))


def about(task: Task) -> dict[str, str | int]:
    to = place(task.callback_url or "")
    resent = task.callback_attempts - 1
    return {
        "http.request.method": "POST",
        **({"server.address": to.host.strip("[]"), "server.port": to.port} if to else {}),
        **({"http.request.resend_count": resent} if resent else {}),
        "messaging.message.id": str(task.id),
    }
