"""The trace of one message of a socket: a root span, for the handshake may be hours ago; it links to that."""

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer, set_span_in_context

ALONE = Context()


class MessageTrace:
    """Current while the message is taken in: `with MessageTrace(…) as trace`. A chat goes on after that: its task sets
    `goes_on`, and ends the span."""

    __slots__ = ("_span", "_token", "goes_on")

    def __init__(self, tracer: Tracer, handshake: SpanContext, key_prefix: str) -> None:
        about, links = {"atp.key_prefix": key_prefix}, [Link(handshake)]
        self._span = tracer.start_span("ws invalid", ALONE, SpanKind.SERVER, about, links)
        self.goes_on = False

    def __enter__(self) -> "MessageTrace":
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(self, *_: object) -> None:
        detach(self._token)
        if not self.goes_on:
            self.end()

    def name(self, type_: str) -> None:
        """Once it is understood: one of the types of the protocol."""
        self._span.update_name(f"ws {type_}")

    def end(self) -> None:
        self._span.end()
