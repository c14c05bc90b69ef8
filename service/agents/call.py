"""A model call under way, and its span: OpenTelemetry's conventions for generative AI, of which no words are told.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.trace import Span, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.agents.messages import Answer, Prompt
from service.errors import AtpError
from service.telemetry.operations import Exemplar, exemplar
from service.telemetry.spans import RecordedSpan

OPERATION = "chat"
PROPAGATOR = TraceContextTextMapPropagator()
# The server's own word may be anything.
FINISHED = frozenset(("stop", "length", "content_filter", "tool_calls", "function_call"))
PORTS = {"http": 80, "https": 443}


@dataclass
class Call:
    """The span is ended by `end`; it is never made current."""

    span: Span
    answer: Answer | None = None

    def headers(self) -> dict[str, str]:
        """The trace's context for the model server."""
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, set_span_in_context(self.span))
        return carrier

    def exemplar(self) -> Exemplar:
        return exemplar(self.span) if isinstance(self.span, RecordedSpan) else None

    def fail(self, error: AtpError) -> None:
        self.span.set_status(StatusCode.ERROR, error.detail)
        self.span.set_attribute("error.type", error.code)
        if status := error.extra.get("upstream_status"):
            self.span.set_attribute("http.response.status_code", status)

    def end(self, agent_id: str, prompt: Prompt) -> None:
        if self.span.is_recording():
            self.span.set_attributes({**asked(agent_id, prompt), **answered(self.answer)})
        self.span.end()


def asked(agent_id: str, prompt: Prompt) -> dict[str, str | int]:
    model, base = prompt.model, urlsplit(prompt.model.provider.base_url)
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": model.provider.name,
        "gen_ai.request.model": model.id,
        **({"gen_ai.agent.id": agent_id} if agent_id else {}),
        "server.address": base.hostname or "",
        "server.port": base.port or PORTS.get(base.scheme, 0),
    }


def answered(answer: Answer | None) -> Mapping[str, str | int | list[str]]:
    if answer is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": answer.tokens.input,
        "gen_ai.usage.output_tokens": answer.tokens.output,
        "gen_ai.response.finish_reasons": [answer.finish_reason if answer.finish_reason in FINISHED else "other"],
        **({"gen_ai.response.model": answer.model} if answer.model else {}),
    }
