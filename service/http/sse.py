"""Server-sent events as a response (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, nullcontext
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import AtpError, KeyEnded
from service.http.disconnect import until_gone
from service.http.problems import problem

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would gather the stream otherwise
}


KEEP_ALIVE = b": \n\n"  # a comment, for whoever cuts connections that say nothing


def event(name: str, data: Any, place: str | None = None) -> bytes:
    """One event; JSON has no raw line breaks, so one data line is enough. `place` is its `id`: a client that comes
    back says the last one it read, in Last-Event-ID."""
    told = b"id: %b\n" % place.encode() if place else b""
    return b"%bevent: %b\ndata: %b\n\n" % (told, name.encode(), to_json(data))


def error_event(error: AtpError, request_id: str) -> bytes:
    """The last event of a stream that could not go on."""
    return event("error", problem(error, request_id))


class EventStream(Response):
    """Streams what a generator yields, in the task that made it; a client that leaves closes the generator.

    `held` (`Streams.held(identity)`) ends it with the caller's key: the generator is closed, and what `last` makes of
    the KeyEnded and the request's id is the last thing that the client reads. `taken` is closed when all is over.

    Starlette's StreamingResponse iterates in another task, which a generator with deadlines inside does not survive.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        held: AbstractAsyncContextManager[None] | None = None,
        last: Callable[[AtpError, str], bytes] = error_event,
        headers: Mapping[str, str] = HEADERS,
        taken: AsyncExitStack | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **headers})
        del self.headers["content-length"]
        self._events, self._held, self._last = events, held or nullcontext(), last
        self._taken = taken or AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._taken:
            await self._stream(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        end = b""
        try:
            async with until_gone(receive), self._held, aclosing(self._events) as events:
                async for chunk in events:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except KeyEnded as error:
            end = self._last(error, scope["atp.request_id"])
        await send({"type": "http.response.body", "body": end, "more_body": False})
