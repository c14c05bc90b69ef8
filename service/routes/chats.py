"""One chat on its way, whatever carries it: its questions, how its answers are written, and what it used."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from service.agents.messages import Answer, Delta, Tokens, estimate
from service.agents.parallel import Asker, Outcome
from service.agents.runner import Question
from service.errors import AtpError
from service.http.context import CLIENT_CLOSED
from service.http.openapi_parts import Problem
from service.http.problems import problem
from service.keys.verifier import Identity
from service.routes.chat_answers import AgentAnswer, ChatAnswer, ChatAnswers, Usage
from service.routes.chat_requests import ANY, Caching
from service.usage.ledger import UsageRow
from service.usage.meter import Meter

Event = tuple[str, dict[str, Any]]  # its name and its fields

TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True)
class Caller:
    """Who asks, and what the carrier knows of it; `started` by time.perf_counter()."""

    identity: Identity
    request_id: str
    caching: Caching = ANY
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The part of a conversation that a chat adds to it."""

    user_id: str
    session_id: str
    task: str


class Chat:
    """One chat on its way. `several`: its answers stand side by side, also where it is only one; `context`: it goes
    on with a conversation, so none that is known would do."""

    def __init__(
        self,
        caller: Caller,
        questions: Sequence[Question],
        asker: Asker,
        exchange: Exchange | None = None,
        *,
        several: bool = False,
        context: bool = False,
    ) -> None:
        self.request_id, self.questions, self.asker, self.exchange = caller.request_id, questions, asker, exchange
        self.several, self.bypass = several, context or caller.caching != ANY
        self.agents = ",".join(question.agent.id for question in questions)
        self.models = ",".join(dict.fromkeys(question.prompt.model.id for question in questions))
        who = caller.identity
        self.meter = Meter(
            caller.request_id, who.key_hash, who.user_id, self.agents, self.models, started=caller.started
        )
        self._unfinished = {question.agent.id: 0 for question in questions}  # characters streamed so far
        self._recalled: set[str] = set()  # agents whose answer was known, or asked for by somebody else
        self._ages: list[float | None] = []
        self._estimated = False
        self._errors: list[AtpError] = []

    def take(self, outcome: Outcome) -> None:
        """Account for one outcome."""
        agent_id, item = outcome.question.agent.id, outcome.item
        if isinstance(item, Delta):
            self._unfinished[agent_id] += len(item.text)
            if item.age_s is not None:
                self._recalled.add(agent_id)
            return
        streamed = self._unfinished.pop(agent_id)
        if isinstance(item, Answer):
            self._ages.append(item.age_s)
            self._add(outcome.question, item.tokens)
            return
        self._errors.append(item)
        if streamed and agent_id not in self._recalled:  # it was read and written, so it was paid
            self._add(outcome.question, estimate(outcome.question.prompt, streamed))

    def _add(self, question: Question, tokens: Tokens) -> None:
        self._estimated |= tokens.estimated
        price = question.prompt.model.price
        cost = tokens.input * price.input_usd_per_mtok + tokens.output * price.output_usd_per_mtok
        self.meter.add(tokens.input, tokens.output, cost / TOKENS_PER_PRICE)

    @property
    def status(self) -> int:
        """200 while one agent answered, else the first one's failure."""
        return self._errors[0].status if len(self._errors) == len(self.questions) else 200

    def raise_if_all_failed(self) -> None:
        if self.status != 200:
            raise self._errors[0]

    def age_s(self) -> float | None:
        """How old the oldest part of the answer is; None unless every part of it was known."""
        if not self._ages or self._errors or None in self._ages:
            return None
        return max(age for age in self._ages if age is not None)

    def row(self) -> UsageRow:
        self.meter.cached = self.age_s() is not None
        return self.meter.row(self.status)

    def row_when_left(self) -> UsageRow:
        """The usage of a client that left: what the models had read and written by then, estimated."""
        for question in self.questions:
            agent_id = question.agent.id
            if agent_id in self._unfinished:
                due = self.asker.due(question)
                self._add(question, estimate(question.prompt, self._unfinished[agent_id]) if due is None else due)
        return self.meter.row(CLIENT_CLOSED)

    def usage(self) -> Usage:
        return usage(Tokens(self.meter.tokens_in, self.meter.tokens_out, self._estimated))

    def whole(self, outcomes: Iterable[Outcome]) -> ChatAnswer | ChatAnswers:
        """The JSON answer: flat for one agent, `answers` side by side for several."""
        answers = [self.described(outcome) for outcome in outcomes]
        if not self.several:
            return cast(ChatAnswer, {"id": str(self.meter.id), **answers[0]})
        return {"id": str(self.meter.id), "answers": answers, "usage": self.usage()}

    def described(self, outcome: Outcome) -> AgentAnswer:
        about: AgentAnswer = {"agent": outcome.question.agent.id, "model": outcome.question.prompt.model.id}
        if isinstance(outcome.item, AtpError):
            return {**about, "error": cast(Problem, problem(outcome.item, self.request_id))}
        assert isinstance(outcome.item, Answer)  # noqa: S101 - deltas never come here; mypy cannot know
        return {
            **about,
            "answer": outcome.item.text,
            "finish_reason": outcome.item.finish_reason,
            "cached": outcome.item.age_s is not None,
            "usage": usage(outcome.item.tokens),
        }

    def event(self, outcome: Outcome) -> Event:
        """`delta` (a piece), `answer` (an agent finished) or `error` (it failed)."""
        if isinstance(outcome.item, Delta):
            return "delta", {"agent": outcome.question.agent.id, "text": outcome.item.text}
        described = cast(dict[str, Any], self.described(outcome))
        if "error" in described:
            return "error", described
        described.pop("answer")  # the client has it, piece by piece
        return "answer", described


def cache_headers(chat: Chat, age_s: float | None = None) -> dict[str, str]:
    """`X-Cache` HIT (with `Age`, RFC 9111 section 5.1), MISS, or BYPASS where a known answer would not do.

    `age_s` where the answer is yet to come, and its beginning has told.
    """
    if chat.bypass:
        return {"x-cache": "BYPASS"}
    known_s = chat.age_s() if age_s is None else age_s
    return {"x-cache": "MISS"} if known_s is None else {"x-cache": "HIT", "age": str(int(known_s))}


def usage(tokens: Tokens) -> Usage:
    return {"input_tokens": tokens.input, "output_tokens": tokens.output, "estimated": tokens.estimated}
