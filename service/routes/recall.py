"""Answers that are known are repeated; a question that many ask at the same time is put to the model once."""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from service.agents.messages import Answer, Delta, Item, Tokens
from service.agents.parallel import Asker
from service.agents.runner import Question, Runner
from service.cache.entry import Kind
from service.cache.flight import Reader
from service.cache.flights import Flights
from service.routes.chat_requests import ANY, Caching
from service.routes.chats import Caller
from service.settings import Settings

# A known answer is streamed in pieces of about a line, for clients that draw piece by piece.
PIECE = re.compile(r".{1,80}(?:\s|$)|.{1,80}", re.DOTALL)
# What ended otherwise (cut for its length, by a filter) may end well when it is asked again.
WHOLE = "stop"
NOTHING = Tokens()  # what a known answer costs


class Kept(BaseModel):
    """An answer as it lies in the cache."""

    text: str
    finish_reason: str


class AnswerCodec:
    """Answers as bytes. What one cost is not kept: repeating it costs nothing."""

    def encode(self, final: Item) -> bytes:
        assert isinstance(final, Answer)  # noqa: S101 - a call's last item is its Answer; mypy cannot know
        return to_json({"text": final.text, "finish_reason": final.finish_reason})

    def decode(self, value: bytes) -> Item:
        """Raises ValueError for what is no answer."""
        kept = Kept.model_validate_json(value)
        return Answer(kept.text, NOTHING, kept.finish_reason)


def cacheable(final: Item) -> bool:
    return isinstance(final, Answer) and final.finish_reason == WHOLE


class Recall:
    """Gives each chat an Asker that looks in the cache first, by the chat's own terms.

    1. A chat with a conversation behind it is nobody else's, and asked of the model itself.
    2. So is one whose client wants nothing kept; one that wants a fresh answer leaves it for others.
    3. Else an answer is known by everything that decides it; with CACHE_SCOPE=user also by whose it is.
    """

    def __init__(self, runner: Runner, flights: Flights[Item], settings: Settings) -> None:
        self._runner, self._flights = runner, flights
        self._ttl_s: dict[Kind, int] = {
            "agent_response": settings.agent_response_ttl,
            "query": settings.query_cache_ttl,
        }
        self._by_user = settings.cache_scope == "user"

    def asker(self, caller: Caller, *, several: bool = False, context: bool = False) -> Asker:
        if context:
            return self._runner
        owner = caller.identity.user_id if self._by_user else ""
        kind: Kind = "query" if several else "agent_response"
        return Recaller(self._runner, self._flights, Terms(kind, self._ttl_s[kind], owner, caller.caching))


class Terms(NamedTuple):
    """How a chat's answers are kept: as what, for how long, for whom (empty: for all), and what its client allows."""

    kind: Kind
    ttl_s: int
    owner: str
    caching: Caching


class Recaller:
    """The Asker of one chat."""

    def __init__(self, runner: Runner, flights: Flights[Item], terms: Terms) -> None:
        self._runner, self._flights, self._terms = runner, flights, terms
        self._keys: dict[str, str] = {}  # by agent, as the next
        self._dues: dict[str, Tokens] = {}

    def known(self, question: Question) -> Answer | None:
        """The answer, if this node has it at hand."""
        if self._terms.caching != ANY:
            return None
        found = self._flights.known(self._key(question), self._terms.kind)
        if found is None:
            return None
        assert isinstance(found[0], Answer)  # noqa: S101 - as the codec says
        return repeated(found[0], found[1].age_s)

    def due(self, question: Question) -> Tokens | None:
        """Of a call that was left early: nothing where it is another's, and all where it had ended by then."""
        return self._dues.get(question.agent.id)

    @asynccontextmanager
    async def _reading(
        self, question: Question, begin: Callable[[], AsyncGenerator[Item, None]]
    ) -> AsyncIterator[Reader[Item]]:
        reader = self._open(question, begin)
        try:
            async with reader:
                yield reader
        finally:
            ours, final = reader.left_unpaid()
            if not ours or isinstance(final, Answer):
                self._dues[question.agent.id] = final.tokens if isinstance(final, Answer) else Tokens()

    def _open(self, question: Question, begin: Callable[[], AsyncGenerator[Item, None]]) -> Reader[Item]:
        terms, key, groups = self._terms, self._key(question), (question.agent.id,)
        read, write = terms.caching.read, terms.caching.write
        return self._flights.open(key, terms.kind, groups, terms.ttl_s, begin, read=read, write=write)

    def _key(self, question: Question) -> str:
        agent_id = question.agent.id
        if agent_id not in self._keys:
            self._keys[agent_id] = digest(question, self._terms.owner)
        return self._keys[agent_id]

    async def complete(self, question: Question) -> Answer:
        """Raises as the runner."""

        async def begin() -> AsyncGenerator[Item, None]:
            yield await self._runner.complete(question)

        async with self._reading(question, begin) as reader:
            final = await reader.final()
            assert isinstance(final, Answer)  # noqa: S101 - as the codec says
            return recalled(final, reader)

    async def stream(self, question: Question) -> AsyncGenerator[Item, None]:
        """As the runner's; an answer that is known begins with an empty Delta that tells its age."""
        async with self._reading(question, lambda: self._runner.stream(question)) as reader:
            age_s, pieces = age_of(reader), 0
            if age_s is not None:
                yield Delta("", age_s)
            async for item in reader:
                if isinstance(item, Delta):
                    pieces += 1
                    yield item if age_s is None else Delta(item.text, age_s)
                    continue
                if not pieces:  # it came whole
                    for piece in PIECE.findall(item.text):
                        yield Delta(piece, age_s)
                yield recalled(item, reader)


def age_of(reader: Reader[Item]) -> float | None:
    """None for an answer that this reader's own call gives."""
    return reader.source.age_s if reader.source.result in ("hit", "shared") else None


def recalled(answer: Answer, reader: Reader[Item]) -> Answer:
    """As this reader's own where its cost is: it began the call, or whoever did has left before the end."""
    age_s, pays = age_of(reader), reader.pays()
    if age_s is None or (pays and answer.tokens != NOTHING):
        return answer
    return repeated(answer, age_s)


def repeated(answer: Answer, age_s: float) -> Answer:
    return Answer(answer.text, NOTHING, answer.finish_reason, age_s)


def digest(question: Question, owner: str) -> str:
    """SHA-256 of everything that decides an answer; the agent's instructions are among the messages.

    Another revision of an agent may have the same messages and other ideas, so it counts as well.
    """
    model, agent = question.prompt.model, question.agent
    messages = [message.document() for message in question.prompt.messages]
    parameters = question.prompt.parameters.model_dump(exclude_none=True)
    asked_of = [model.provider.name, model.provider.base_url, model.id, model.provider.extra_body]
    return hashlib.sha256(to_json([owner, agent.id, agent.revision, asked_of, messages, parameters])).hexdigest()
