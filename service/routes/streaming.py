"""A chat as server-sent events: a place among the key's streams, the first piece, then 200 and the rest."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from service.agents.messages import Delta
from service.agents.parallel import Outcome
from service.errors import AtpError, KeyEnded
from service.http.disconnect import ClientGone, until_gone
from service.http.operation import Call
from service.http.sse import EventStream, error_event
from service.http.streams import Streams
from service.limits.slots import Slots
from service.routes.answering import Answering
from service.routes.chats import Chat, Event, cache_headers

Encode = Callable[[AsyncGenerator[Event, None]], AsyncGenerator[bytes, None]]
Last = Callable[[AtpError, str], bytes]  # from an error and the request's id


class Streaming:
    """Answers a chat piece by piece, in whatever words `encode` puts its events, and `last` the error that cuts it."""

    def __init__(self, answering: Answering, slots: Slots, streams: Streams) -> None:
        self._answering, self._slots, self._streams = answering, slots, streams

    @asynccontextmanager
    async def waiting(self, call: Call[Any]) -> AsyncIterator[None]:
        """Around the wait for an answer: it ends with the client's patience, or its key.

        Raises ClientGone or KeyEnded.
        """
        async with until_gone(call.request.receive), self._streams.held(call.identity):
            yield

    async def whole(self, call: Call[Any], chat: Chat) -> list[Outcome]:
        """The whole answers; nothing watches over the wait for those that are known. Raises as `waiting`."""
        known = await self._answering.recall(chat)
        if known is None:
            async with self.waiting(call):
                known = await self._answering.complete(chat)
        return known

    async def respond(self, call: Call[Any], chat: Chat, encode: Encode, last: Last = error_event) -> EventStream:
        """Waits for the first piece before it answers 200, so that a model that fails at once is a plain problem.

        Raises TooMany, what a single agent fails with, ClientGone, or KeyEnded.
        """
        async with AsyncExitStack() as taken:
            await taken.enter_async_context(self._slots.held(call.identity))
            outcomes = self._answering.stream(chat)
            first = await self._first(call, chat, outcomes)
            kept = taken.pop_all()
        events = self._answering.events(chat, beginning_with(first, outcomes))
        age_s = first[0].item.age_s if isinstance(first[0].item, Delta) else None
        headers = {} if chat.several else cache_headers(chat, age_s)
        return EventStream(encode(events), self._streams.held(call.identity), last, headers, kept)

    async def _first(self, call: Call[Any], chat: Chat, outcomes: AsyncGenerator[Outcome, None]) -> list[Outcome]:
        first: list[Outcome] = []
        try:
            async with self.waiting(call):
                while not first or silent(first[-1]):
                    first.append(await anext(outcomes))
        except (ClientGone, KeyEnded, asyncio.CancelledError):  # the latter: cut at the end of a drain
            self._answering.left(chat)
            await outcomes.aclose()
            raise
        if len(chat.questions) == 1 and isinstance(error := first[-1].item, AtpError):
            await outcomes.aclose()
            await self._answering.fail(chat, first[-1])
            raise error
        return first


def silent(outcome: Outcome) -> bool:
    """It says where the answer comes from, and nothing of the answer."""
    return isinstance(outcome.item, Delta) and not outcome.item.text


async def beginning_with(
    first: Iterable[Outcome], rest: AsyncGenerator[Outcome, None]
) -> AsyncGenerator[Outcome, None]:
    """The whole again, after its first items were taken off."""
    async with aclosing(rest):
        for outcome in first:
            yield outcome
        async for outcome in rest:
            yield outcome
