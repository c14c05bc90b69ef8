"""Runs an agent on a model, with the call's metrics and span."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import NamedTuple

from opentelemetry.trace import SpanKind, Tracer

from service.agents.call import OPERATION, Call
from service.agents.catalogue import DIRECT, Agent, Catalogue, Parameters
from service.agents.messages import Answer, Item, Message, ModelClient, Prompt, Tokens
from service.errors import AtpError
from service.telemetry.metrics import Metrics


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
                        self._first_chunk(call, labels(question), waited_s)
                    if isinstance(item, Answer):
                        call.answer = item
                    yield item

    @contextmanager
    def _observed(self, question: Question) -> Iterator[Call]:
        """Time one model call. The span is never made current: a generator may end in another context."""
        names = labels(question)
        call = Call(self._tracer.start_span(f"chat {names[2]}", kind=SpanKind.CLIENT))
        started, error_type = time.perf_counter(), ""
        try:
            yield call
        except AtpError as error:
            error_type = error.code
            call.fail(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            error_type = "cancelled"
            raise
        except BaseException:
            error_type = AtpError.code
            call.fail(AtpError())
            raise
        finally:
            duration_s = time.perf_counter() - started
            self._metrics.model_durations(*names, error_type).observe(duration_s, call.exemplar())
            self._count(call, names)
            call.end(question.agent.id, question.prompt)

    def _first_chunk(self, call: Call, names: tuple[str, str, str], waited_s: float) -> None:
        self._metrics.model_first_chunks(*names[1:]).observe(waited_s, call.exemplar())
        call.span.set_attribute("gen_ai.response.time_to_first_chunk", waited_s)

    def _count(self, call: Call, names: tuple[str, str, str]) -> None:
        if call.answer:
            self._metrics.model_token_counts(*names, "input").observe(call.answer.tokens.input)
            self._metrics.model_token_counts(*names, "output").observe(call.answer.tokens.output)


def labels(question: Question) -> tuple[str, str, str]:
    """operation, provider, model: all from configuration, so few."""
    model = question.prompt.model
    return OPERATION, model.provider.name, model.id
