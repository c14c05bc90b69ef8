"""What tasks have in the traces: the link to the request that made them, and each try of a callback."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.plain_url import place
from service.tasks.records import Task
from service.tasks.store import QUEUE

PROPAGATOR = TraceContextTextMapPropagator()


def linked(task: Task) -> list[Link]:
    """To the request that made it: a task may run hours later, so it is no child of it."""
    carrier = {"traceparent": task.traceparent}
    context = get_current_span(PROPAGATOR.extract(carrier)).get_span_context() if task.traceparent else None
    return [Link(context)] if context and context.is_valid else []


@contextmanager
def processing(tracer: Tracer, task: Task, queue: str) -> Iterator[None]:
    """One run of a task, or one try of its callback: the root of a trace, by OpenTelemetry's messaging conventions."""
    attempt = task.attempt if queue == QUEUE else task.callback_attempts
    with tracer.start_as_current_span(
        f"process {queue}",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=linked(task),
        attributes=about_run(task, queue, attempt),
        record_exception=False,
        set_status_on_exception=False,
    ):
        structlog.contextvars.bind_contextvars(request_id=task.request_id)
        yield


@contextmanager
def delivery(tracer: Tracer, task: Task) -> Iterator[Span]:
    """The span of one try, by OpenTelemetry's conventions for HTTP clients, but for `url.full`: path and query may hold
    the receiver's secrets. An error's text may quote them too, so `failed` gives its word."""
    with tracer.start_as_current_span(
        "POST callback",
        kind=SpanKind.CLIENT,
        attributes=about(task),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def carried(span: Span) -> dict[str, str]:
    """The trace's context for the receiver."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier, set_span_in_context(span))
    return carrier


def failed(span: Span, reason: str) -> None:
    """`reason`: the receiver's status, or a word for what kept it from answering."""
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", reason)
    if reason.isdigit():
        span.set_attribute("http.response.status_code", int(reason))


def about_run(task: Task, queue: str, attempt: int) -> dict[str, str | int]:
    return {
        "messaging.system": "procrastinate",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": str(task.id),
        "atp.task_attempt": attempt,
    }


def about(task: Task) -> dict[str, str | int]:
    to = place(task.callback_url or "")
    resent = task.callback_attempts - 1
    return {
        "http.request.method": "POST",
        **({"server.address": to.host.strip("[]"), "server.port": to.port} if to else {}),
        **({"http.request.resend_count": resent} if resent else {}),
        "messaging.message.id": str(task.id),
    }
