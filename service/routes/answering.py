"""One chat under way, whatever carries it: what it used, and its answer piece by piece."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.agents.catalogue import Parameters
from service.agents.messages import Answer, Delta, Tokens, estimate
from service.agents.parallel import Outcome
from service.agents.runner import Question
from service.errors import AtpError, DatabaseUnavailable
from service.http.context import CLIENT_CLOSED
from service.http.problems import problem
from service.keys.verifier import Identity
from service.usage.ledger import Ledger, UsageRow
from service.usage.meter import Meter

Event = tuple[str, dict[str, Any]]  # its name and its fields

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


class Chat:
    """One chat request on its way: its questions, what it used, how its answers are written."""

    def __init__(
        self, body: ChatRequest, identity: Identity, request_id: str, started: float, questions: list[Question]
    ) -> None:
        self.body, self.request_id, self.questions = body, request_id, questions
        agents = ",".join(question.agent.id for question in questions)
        models = ",".join(dict.fromkeys(question.prompt.model.id for question in questions))
        self.meter = Meter(request_id, identity.key_hash, identity.user_id, agents, models, started=started)
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
        if self.body.agents is None:
            return {"id": str(self.meter.id), **answers[0]}
        return {"id": str(self.meter.id), "answers": answers, "usage": self.usage()}

    def described(self, outcome: Outcome) -> dict[str, Any]:
        about = {"agent": outcome.question.agent.id, "model": outcome.question.prompt.model.id}
        if isinstance(outcome.item, AtpError):
            return about | {"error": problem(outcome.item, self.request_id)}
        assert isinstance(outcome.item, Answer)  # noqa: S101 - deltas never come here; mypy cannot know
        return about | {
            "answer": outcome.item.text,
            "finish_reason": outcome.item.finish_reason,
            "usage": usage(outcome.item.tokens),
        }

    def event(self, outcome: Outcome) -> Event:
        """`delta` (a piece), `answer` (an agent finished) or `error` (it failed)."""
        if isinstance(outcome.item, Delta):
            return "delta", {"agent": outcome.question.agent.id, "text": outcome.item.text}
        described = self.described(outcome)
        if "error" in described:
            return "error", described
        described.pop("answer")  # the client has it, piece by piece
        return "answer", described


async def events(chat: Chat, outcomes: AsyncGenerator[Outcome, None], ledger: Ledger) -> AsyncGenerator[Event, None]:
    """The answer piece by piece; `done` comes last, once the usage is durable. An `error` without an agent is the end.

    Closed early, it leaves a row of what was used by then.
    """
    row = None
    try:
        async with aclosing(outcomes):
            async for outcome in outcomes:
                chat.take(outcome)
                yield chat.event(outcome)
        row = chat.meter.row(chat.status)
        await ledger.record(row)
        yield "done", {"id": str(chat.meter.id), "usage": chat.usage()}
    except DatabaseUnavailable as error:
        yield "error", {"error": problem(error, chat.request_id)}
    finally:
        if row is None:  # the client left; no await is possible here
            ledger.enqueue(chat.row_when_left())


def usage(tokens: Tokens) -> dict[str, Any]:
    return {"input_tokens": tokens.input, "output_tokens": tokens.output, "estimated": tokens.estimated}
