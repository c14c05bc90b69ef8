"""Server-sent events as a response (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.http.disconnect import until_gone

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would gather the stream otherwise
}


def event(name: str, data: Any) -> bytes:
    """One event; JSON has no raw line breaks, so one data line is enough."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(data))


class EventStream(Response):
    """Streams what a generator yields, in the task that made it; a client that leaves closes the generator.

    Starlette's StreamingResponse iterates in another task, which a generator with deadlines inside does not survive.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with until_gone(receive), aclosing(self._events) as events:
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
