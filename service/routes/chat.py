"""`POST /api/v1/chat` and its batch: one agent, or several in parallel; JSON or server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from pydantic_core import to_json
from starlette.responses import Response

from service.errors import AtpError
from service.http.openapi_parts import Problem
from service.http.operation import Call
from service.http.problems import problem
from service.http.sse import event
from service.routes.answering import Answering
from service.routes.chat_answers import BatchAnswer, BatchedItem, answers_batch, answers_chat
from service.routes.chat_requests import BatchItem, BatchRequest, ChatRequest, caching
from service.routes.chats import Caller, Event, cache_headers
from service.routes.streaming import Streaming

# Of one batch; the others wait, so that one request cannot take all the connections to the models.
BATCH_AT_ONCE = 8


class ChatRoutes:
    """A client that leaves ends the model calls."""

    def __init__(self, answering: Answering, streaming: Streaming) -> None:
        self._answering, self._streaming = answering, streaming

    @answers_chat
    async def create(self, call: Call[ChatRequest]) -> Response:
        """Ask one agent, or several in parallel."""
        chat = await self._answering.begin(caller(call), call.body)
        if call.body.stream:
            return await self._streaming.respond(call, chat, as_sse)
        outcomes = await self._streaming.whole(call, chat)
        chat.raise_if_all_failed()
        return Response(to_json(chat.whole(outcomes)), headers=cache_headers(chat), media_type="application/json")

    @answers_batch
    async def batch(self, call: Call[BatchRequest]) -> Response:
        """Ask several tasks at once; each is answered or fails in its place, and counts as a chat."""
        await call.charge(len(call.body.requests) - 1)
        places, numbered = asyncio.Semaphore(BATCH_AT_ONCE), enumerate(call.body.requests)
        async with self._streaming.waiting(call), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._item(index, caller(call), item, places)) for index, item in numbered]
        answer = BatchAnswer(results=[task.result() for task in tasks])
        return Response(to_json(answer), media_type="application/json")

    async def _item(self, index: int, who: Caller, item: BatchItem, places: asyncio.Semaphore) -> BatchedItem:
        try:
            async with places:
                chat = await self._answering.begin(who, item)
                outcomes = await self._answering.complete(chat)
                chat.raise_if_all_failed()
        except AtpError as error:
            told = cast(Problem, problem(error, who.request_id))
            return {"index": index, "status": error.status, "error": told}
        return cast(BatchedItem, {"index": index, "status": 200, **chat.whole(outcomes)})


def caller(call: Call[Any]) -> Caller:
    return Caller(call.identity, call.request_id, caching(call.request.headers), call.started)


async def as_sse(chat_events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Server-sent events; the fields of an error are its problem's, beside the agent it concerns."""
    async with aclosing(chat_events):
        async for name, fields in chat_events:
            yield event(name, fields.pop("error") | fields if name == "error" else fields)
