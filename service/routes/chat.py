"""`POST /api/v1/chat`: one agent, or several in parallel; JSON or server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json
from starlette.responses import Response

from service.agents.catalogue import Parameters
from service.agents.messages import Answer, Delta, Tokens, estimate
from service.agents.parallel import Outcome, complete_all, stream_all
from service.agents.runner import Question, Runner
from service.errors import AtpError, DatabaseUnavailable
from service.http.context import CLIENT_CLOSED
from service.http.disconnect import ClientGone, until_gone
from service.http.operation import Call
from service.http.problems import problem
from service.http.sse import EventStream, event
from service.usage.ledger import Ledger, UsageRow
from service.usage.meter import Meter

MAX_AGENTS = 8
AgentName = Annotated[str, Field(min_length=1, max_length=63)]


class ChatRequest(BaseModel):
    """A task for one agent, or for several side by side."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    agent: AgentName | None = None
    agents: Annotated[list[AgentName] | None, Field(min_length=1, max_length=MAX_AGENTS)] = None
    task: Annotated[str, Field(min_length=1, max_length=400_000)]
    model: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    parameters: Parameters = Parameters()
    stream: bool = False

    @model_validator(mode="after")
    def one_or_several(self) -> "ChatRequest":
        if (self.agent is None) == (self.agents is None):
            raise ValueError("give either agent or agents")
        if self.agents and len(set(self.agents)) != len(self.agents):
            raise ValueError("agents must differ from each other")
        return self

    def agent_ids(self) -> list[str]:
        return self.agents or [self.agent or ""]


class ChatRoutes:
    """An answer is sent once its usage row is durable; a client that leaves ends the model calls."""

    def __init__(self, runner: Runner, ledger: Ledger) -> None:
        self._runner, self._ledger = runner, ledger

    async def create(self, call: Call[ChatRequest]) -> Response:
        """Ask one agent, or several in parallel."""
        self._ledger.require_open()
        body = call.body
        questions = [self._runner.question(name, body.task, body.model, body.parameters) for name in body.agent_ids()]
        chat = Chat(call, questions)
        return await (self._streamed(chat) if body.stream else self._whole(chat))

    async def _whole(self, chat: "Chat") -> Response:
        try:
            async with until_gone(chat.call.request.receive):
                outcomes = await complete_all(self._runner, chat.questions)
        except (ClientGone, asyncio.CancelledError):  # the latter: cut at the end of a drain
            self._ledger.enqueue(chat.row_when_left())
            raise
        for outcome in outcomes:
            chat.take(outcome)
        await self._ledger.record(chat.meter.row(chat.status))
        chat.raise_if_all_failed()
        return Response(to_json(chat.whole(outcomes)), media_type="application/json")

    async def _streamed(self, chat: "Chat") -> Response:
        """Wait for the first piece before answering 200, so that a model that fails at once is a plain problem."""
        outcomes = stream_all(self._runner, chat.questions)
        try:
            async with until_gone(chat.call.request.receive):
                first = await anext(outcomes)
        except (ClientGone, asyncio.CancelledError):
            self._ledger.enqueue(chat.row_when_left())
            await outcomes.aclose()
            raise
        chat.take(first)
        if len(chat.questions) == 1 and isinstance(first.item, AtpError):
            await outcomes.aclose()
            await self._ledger.record(chat.meter.row(chat.status))
            raise first.item
        return EventStream(self._events(chat, first, outcomes))

    async def _events(
        self, chat: "Chat", first: Outcome, rest: AsyncGenerator[Outcome, None]
    ) -> AsyncGenerator[bytes, None]:
        row = None
        try:
            yield chat.event(first)
            async with aclosing(rest) as outcomes:
                async for outcome in outcomes:
                    chat.take(outcome)
                    yield chat.event(outcome)
            row = chat.meter.row(chat.status)
            await self._ledger.record(row)
            yield event("done", {"id": str(chat.meter.id), "usage": chat.usage()})
        except DatabaseUnavailable as error:
            yield event("error", problem(error, chat.call.request_id))
        finally:
            if row is None:  # the client left; no await is possible here
                self._ledger.enqueue(chat.row_when_left())


class Chat:
    """One chat request on its way: its questions, what it used, how its answers are written."""

    def __init__(self, call: Call[ChatRequest], questions: list[Question]) -> None:
        self.call, self.questions = call, questions
        agents = ",".join(question.agent.id for question in questions)
        models = ",".join(dict.fromkeys(question.prompt.model.id for question in questions))
        identity = call.identity
        self.meter = Meter(call.request_id, identity.key_hash, identity.user_id, agents, models, started=call.started)
        self._unfinished = {question.agent.id: 0 for question in questions}  # characters streamed so far
        self._estimated = False
        self._errors: list[AtpError] = []

    def take(self, outcome: Outcome) -> None:
        """Account for one outcome."""
        agent_id, item = outcome.question.agent.id, outcome.item
        if isinstance(item, Delta):
            self._unfinished[agent_id] += len(item.text)
            return
        streamed = self._unfinished.pop(agent_id)
        if isinstance(item, Answer):
            self._add(item.tokens)
            return
        self._errors.append(item)
        if streamed:  # it was read and written, so it was paid
            self._add(estimate(outcome.question.prompt, streamed))

    def _add(self, tokens: Tokens) -> None:
        self._estimated |= tokens.estimated
        self.meter.add(tokens.input, tokens.output)

    @property
    def status(self) -> int:
        """200 while one agent answered, else the first one's failure."""
        return self._errors[0].status if len(self._errors) == len(self.questions) else 200

    def raise_if_all_failed(self) -> None:
        if self.status != 200:
            raise self._errors[0]

    def row_when_left(self) -> UsageRow:
        """The usage of a client that left: what the models had read and written by then, estimated."""
        for question in self.questions:
            if question.agent.id in self._unfinished:
                self._add(estimate(question.prompt, self._unfinished[question.agent.id]))
        return self.meter.row(CLIENT_CLOSED)

    def usage(self) -> dict[str, Any]:
        return usage(Tokens(self.meter.tokens_in, self.meter.tokens_out, self._estimated))

    def whole(self, outcomes: Iterable[Outcome]) -> dict[str, Any]:
        """The JSON answer: flat for one agent, `answers` side by side for several."""
        answers = [self.described(outcome) for outcome in outcomes]
        if self.call.body.agents is None:
            return {"id": str(self.meter.id), **answers[0]}
        return {"id": str(self.meter.id), "answers": answers, "usage": self.usage()}

    def described(self, outcome: Outcome) -> dict[str, Any]:
        about = {"agent": outcome.question.agent.id, "model": outcome.question.prompt.model.id}
        if isinstance(outcome.item, AtpError):
            return about | {"error": problem(outcome.item, self.call.request_id)}
        assert isinstance(outcome.item, Answer)  # noqa: S101 - deltas never come here; mypy cannot know
        return about | {
            "answer": outcome.item.text,
            "finish_reason": outcome.item.finish_reason,
            "usage": usage(outcome.item.tokens),
        }

    def event(self, outcome: Outcome) -> bytes:
        """`delta` (a piece), `answer` (an agent finished) or `error` (it failed)."""
        if isinstance(outcome.item, Delta):
            return event("delta", {"agent": outcome.question.agent.id, "text": outcome.item.text})
        described = self.described(outcome)
        if "error" in described:
            return event("error", described.pop("error") | described)
        described.pop("answer")  # the client has it, piece by piece
        return event("answer", described)


def usage(tokens: Tokens) -> dict[str, Any]:
    return {"input_tokens": tokens.input, "output_tokens": tokens.output, "estimated": tokens.estimated}
