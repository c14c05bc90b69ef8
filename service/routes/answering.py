"""Begins chats and sees them through, whatever carries them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from service.agents.messages import Answer, Delta, Message
from service.agents.parallel import Outcome, complete_all, stream_all
from service.agents.runner import Question, Runner
from service.agents.session_records import Turn
from service.agents.sessions import Sessions
from service.errors import AtpError, DatabaseUnavailable
from service.http.problems import problem
from service.routes.chat_requests import BatchItem, ChatRequest
from service.routes.chats import Caller, Chat, Event, Exchange
from service.routes.recall import Recall
from service.telemetry.operations import tell, tell_failure
from service.usage.ledger import Ledger


class Answering:
    """An answer is acknowledged once its usage row is durable."""

    def __init__(self, runner: Runner, recall: Recall, sessions: Sessions, ledger: Ledger) -> None:
        self._runner, self._recall, self._sessions, self._ledger = runner, recall, sessions, ledger

    async def begin(self, caller: Caller, asked: BatchItem) -> Chat:
        """Raises NotFound for an agent or model there is not, DatabaseUnavailable while usage cannot be recorded."""
        self._ledger.require_open()
        exchange, messages = None, [Message("user", asked.task)]
        if isinstance(asked, ChatRequest) and asked.session_id:
            exchange = Exchange(caller.identity.user_id, asked.session_id, asked.task)
            messages = [*await self._sessions.history(exchange.user_id, exchange.session_id), *messages]
        questions = [
            self._runner.question(agent, messages, asked.model, asked.parameters) for agent in asked.agent_ids()
        ]
        context, several = exchange is not None, asked.agents is not None
        asker = self._recall.asker(caller, several=several, context=context)
        chat = Chat(caller, questions, asker, exchange, several=several, context=context)
        if isinstance(asked, ChatRequest):  # of a batch every one would overwrite the one before
            tell(agent=chat.agents, model=chat.models)
        return chat

    def begin_direct(self, caller: Caller, question: Question, *, context: bool) -> Chat:
        """A chat of one question that is made already; `context`: it holds a conversation, so it is nobody else's.

        Raises DatabaseUnavailable.
        """
        self._ledger.require_open()
        chat = Chat(caller, [question], self._recall.asker(caller, context=context), context=context)
        tell(agent=chat.agents, model=chat.models)
        return chat

    async def recall(self, chat: Chat) -> list[Outcome] | None:
        """The answers, if nobody need be asked for any of them."""
        known = [(question, chat.asker.known(question)) for question in chat.questions]
        outcomes = [Outcome(question, answer) for question, answer in known if answer is not None]
        if len(outcomes) < len(known):
            return None
        for outcome in outcomes:
            chat.take(outcome)
        await self._finish(chat, outcomes)
        return outcomes

    async def complete(self, chat: Chat) -> list[Outcome]:
        """The whole answers, or their errors, in the order asked; cancelled, it leaves a row of what was used."""
        try:
            outcomes = await complete_all(chat.asker, chat.questions, chat.take)
        except asyncio.CancelledError:
            self._ledger.enqueue(chat.row_when_left())
            raise
        await self._finish(chat, outcomes)
        return outcomes

    def stream(self, chat: Chat) -> AsyncGenerator[Outcome, None]:
        return stream_all(chat.asker, chat.questions)

    def left(self, chat: Chat) -> None:
        """The client is gone; no await is possible here."""
        self._ledger.enqueue(chat.row_when_left())

    async def fail(self, chat: Chat, outcome: Outcome) -> None:
        """The only agent failed before its first word."""
        chat.take(outcome)
        await self._ledger.record(chat.row())

    async def events(self, chat: Chat, outcomes: AsyncGenerator[Outcome, None]) -> AsyncGenerator[Event, None]:
        """The answer piece by piece; `done` comes last, once the usage is durable. An `error` without an agent is the
        end.

        Closed early, it leaves a row of what was used by then.
        """
        try:
            async with aclosing(self._accounted(chat, outcomes)) as accounted:
                async for outcome in accounted:
                    if isinstance(outcome.item, AtpError):
                        tell_failure(outcome.item.code)
                    yield chat.event(outcome)
            yield "done", {"id": str(chat.meter.id), "usage": chat.usage()}
        except DatabaseUnavailable as error:
            tell_failure(error.code)
            yield "error", {"error": problem(error, chat.request_id)}

    async def complete_aloud(self, chat: Chat, tell: Callable[[str, str], None]) -> list[Outcome]:
        """As `complete`, and `tell(agent, text)` hears each piece as it comes."""
        ends: list[Outcome] = []
        async with aclosing(self._accounted(chat, self.stream(chat))) as accounted:
            async for outcome in accounted:
                if isinstance(outcome.item, Delta):
                    tell(outcome.question.agent.id, outcome.item.text)
                else:
                    ends.append(outcome)
        places = {question.agent.id: place for place, question in enumerate(chat.questions)}
        return sorted(ends, key=lambda end: places[end.question.agent.id])

    async def _accounted(self, chat: Chat, outcomes: AsyncGenerator[Outcome, None]) -> AsyncGenerator[Outcome, None]:
        """All but silent pieces; after the last one the usage is durable.

        Closed early, it leaves a row of what was used by then. Raises DatabaseUnavailable.
        """
        ends: list[Outcome] = []
        whole = False
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    chat.take(outcome)
                    if not isinstance(outcome.item, Delta):
                        ends.append(outcome)
                    elif not outcome.item.text:
                        continue
                    yield outcome
            whole = True
            await self._finish(chat, ends)
        finally:
            if not whole:
                self.left(chat)

    async def _finish(self, chat: Chat, outcomes: Sequence[Outcome]) -> None:
        """Raises DatabaseUnavailable: the row is not durable, so the answer must not be acknowledged."""
        await self._ledger.record(chat.row())
        if chat.exchange and chat.status == 200:
            await self._remember(chat.exchange, outcomes)

    async def _remember(self, exchange: Exchange, outcomes: Sequence[Outcome]) -> None:
        now = time.time()
        turns = [Turn("user", exchange.task, at=now)]
        for outcome in outcomes:
            if isinstance(outcome.item, Answer):
                turns.append(Turn("assistant", outcome.item.text, outcome.question.agent.id, now))
        await self._sessions.append(exchange.user_id, exchange.session_id, turns)
