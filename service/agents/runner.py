"""Runs an agent on a model, with the call's metrics and span."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.agents.catalogue import DIRECT, Agent, Catalogue, Parameters
from service.agents.messages import Answer, Item, Message, ModelClient, Prompt, Tokens
from service.errors import AtpError
from service.telemetry.metrics import Metrics

OPERATION = "chat"
PROPAGATOR = TraceContextTextMapPropagator()


class Question(NamedTuple):
    """One task for one agent, resolved: what to ask whom."""

    agent: Agent
    prompt: Prompt


class Runner:
    """Asks models; every call is timed, counted and a span of the request that made it."""

    def __init__(self, catalogue: Catalogue, client: ModelClient, metrics: Metrics, tracer: Tracer) -> None:
        self._catalogue, self._client, self._metrics, self._tracer = catalogue, client, metrics, tracer

    def question(
        self, agent_id: str, messages: Sequence[Message], model_id: str | None, parameters: Parameters
    ) -> Question:
        """For an agent, whose instructions come before the messages; raises NotFound for an agent or model there is
        not."""
        agent = self._catalogue.agent(agent_id)
        model = self._catalogue.model(model_id, agent)
        whole = (Message("system", agent.instructions.strip()), *messages)
        return Question(agent, Prompt(model, whole, parameters.over(agent.parameters)))

    def direct(self, model_id: str, messages: Sequence[Message], parameters: Parameters) -> Question:
        """For a model without an agent; raises NotFound."""
        return Question(DIRECT, Prompt(self._catalogue.model(model_id), tuple(messages), parameters))

    def known(self, question: Question) -> Answer | None:
        """A model has to be asked."""
        return None

    def due(self, question: Question) -> Tokens | None:
        """Nobody knows what a call that was cut has cost."""
        return None

    async def complete(self, question: Question) -> Answer:
        """Raises UpstreamError or UpstreamTimeout."""
        with self._observed(question) as call:
            call.answer = await self._client.complete(question.prompt, call.headers())
            return call.answer

    async def stream(self, question: Question) -> AsyncGenerator[Item, None]:
        """Deltas, then the Answer; raises as `complete`, also in the middle."""
        started = time.perf_counter()
        waiting = True
        with self._observed(question) as call:
            async with aclosing(self._client.stream(question.prompt, call.headers())) as items:
                async for item in items:
                    if waiting:
                        waiting = False
                        waited_s = time.perf_counter() - started
                        self._metrics.model_first_chunks(*labels(question)[1:]).observe(waited_s)
                    if isinstance(item, Answer):
                        call.answer = item
                    yield item

    @contextmanager
    def _observed(self, question: Question) -> Iterator["Call"]:
        """Time one model call. The span is never made current: a generator may end in another context."""
        names = labels(question)
        call = Call(self._tracer.start_span(f"chat {names[2]}", kind=SpanKind.CLIENT))
        started, error_type = time.perf_counter(), ""
        try:
            yield call
        except AtpError as error:
            error_type = error.code
            call.span.set_status(StatusCode.ERROR, error.detail)
            raise
        except BaseException:
            error_type = "cancelled"
            raise
        finally:
            self._metrics.model_durations(*names, error_type).observe(time.perf_counter() - started)
            self._finish(call, names)

    def _finish(self, call: "Call", names: tuple[str, str, str]) -> None:
        attributes = {
            "gen_ai.operation.name": names[0],
            "gen_ai.provider.name": names[1],
            "gen_ai.request.model": names[2],
        }
        call.span.set_attributes(attributes)
        if call.answer:
            tokens = call.answer.tokens
            self._metrics.model_token_counts(*names, "input").observe(tokens.input)
            self._metrics.model_token_counts(*names, "output").observe(tokens.output)
            usage = {"gen_ai.usage.input_tokens": tokens.input, "gen_ai.usage.output_tokens": tokens.output}
            call.span.set_attributes(usage)
        call.span.end()


@dataclass
class Call:
    """A model call under way."""

    span: Span
    answer: Answer | None = None

    def headers(self) -> dict[str, str]:
        """The trace's context for the model server."""
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, set_span_in_context(self.span))
        return carrier


def labels(question: Question) -> tuple[str, str, str]:
    """operation, provider, model: all from configuration, so a closed set."""
    model = question.prompt.model
    return OPERATION, model.provider.name, model.id
