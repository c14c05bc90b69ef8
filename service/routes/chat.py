"""`POST /api/v1/chat`: one agent, or several in parallel; JSON or server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive

from service.agents.parallel import Outcome, complete_all, stream_all
from service.agents.runner import Runner
from service.errors import AtpError
from service.http.disconnect import ClientGone, until_gone
from service.http.operation import Call
from service.http.sse import EventStream, event
from service.routes.answering import Chat, ChatRequest, Event, events
from service.usage.ledger import Ledger


class ChatRoutes:
    """An answer is sent once its usage row is durable; a client that leaves ends the model calls."""

    def __init__(self, runner: Runner, ledger: Ledger) -> None:
        self._runner, self._ledger = runner, ledger

    async def create(self, call: Call[ChatRequest]) -> Response:
        """Ask one agent, or several in parallel."""
        self._ledger.require_open()
        body = call.body
        questions = [self._runner.question(name, body.task, body.model, body.parameters) for name in body.agent_ids()]
        chat = Chat(body, call.identity, call.request_id, call.started, questions)
        return await (self._streamed if body.stream else self._whole)(chat, call.request.receive)

    async def _whole(self, chat: Chat, receive: Receive) -> Response:
        try:
            async with until_gone(receive):
                outcomes = await complete_all(self._runner, chat.questions)
        except (ClientGone, asyncio.CancelledError):  # the latter: cut at the end of a drain
            self._ledger.enqueue(chat.row_when_left())
            raise
        for outcome in outcomes:
            chat.take(outcome)
        await self._ledger.record(chat.meter.row(chat.status))
        chat.raise_if_all_failed()
        return Response(to_json(chat.whole(outcomes)), media_type="application/json")

    async def _streamed(self, chat: Chat, receive: Receive) -> Response:
        """Wait for the first piece before answering 200, so that a model that fails at once is a plain problem."""
        outcomes = stream_all(self._runner, chat.questions)
        try:
            async with until_gone(receive):
                first = await anext(outcomes)
        except (ClientGone, asyncio.CancelledError):
            self._ledger.enqueue(chat.row_when_left())
            await outcomes.aclose()
            raise
        if len(chat.questions) == 1 and isinstance(first.item, AtpError):
            chat.take(first)
            await outcomes.aclose()
            await self._ledger.record(chat.meter.row(chat.status))
            raise first.item
        return EventStream(as_sse(events(chat, beginning_with(first, outcomes), self._ledger)))


async def beginning_with(first: Outcome, rest: AsyncGenerator[Outcome, None]) -> AsyncGenerator[Outcome, None]:
    """The whole again, after its first item was taken off."""
    async with aclosing(rest):
        yield first
        async for outcome in rest:
            yield outcome


async def as_sse(chat_events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Server-sent events; the fields of an error are its problem's, beside the agent it concerns."""
    async with aclosing(chat_events):
        async for name, fields in chat_events:
            yield event(name, fields.pop("error") | fields if name == "error" else fields)
