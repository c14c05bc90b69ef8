"""The application calls of one connection: each a task of its own, with an inbox for the ASGI messages it receives."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from hypercorn.config import Config
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

log = structlog.get_logger("server")

INBOX_MESSAGES = 10  # hypercorn's default; beyond it the socket is not read, and TCP holds the client back

AsgiApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Inbox:
    """ASGI messages on their way to one application call: bounded, but a disconnect always gets in.

    Hypercorn's queue deadlocks when an application answers without reading a body of more than ten chunks: the
    disconnect then waits for room that only the application, itself waiting, could make.
    """

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._last: Any = None  # the disconnect, repeated to whoever asks again

    async def put(self, message: Any) -> None:
        while len(self._messages) >= INBOX_MESSAGES and self._last is None:
            if message["type"].endswith(".disconnect"):
                break
            self._room.clear()
            await self._room.wait()
        if self._last is not None:
            return
        if message["type"].endswith(".disconnect"):
            self._last = message
            self._room.set()
        else:
            self._messages.append(message)
        self._arrived.set()

    async def get(self) -> Any:
        while not self._messages:
            if self._last is not None:
                return self._last
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._messages.popleft()


class Calls:
    """The application calls of one connection (hypercorn's TaskGroup, with our inbox and our log)."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> "Calls":
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._group.__aexit__(*error)

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        inbox = Inbox()
        self._group.create_task(self._call(app, scope, inbox, send))
        return inbox.put

    def spawn(self, func: Callable[..., Any], *args: Any) -> None:
        self._group.create_task(func(*args))

    async def _call(self, app: AsgiApp, scope: Any, inbox: Inbox, send: Callable[[Any], Awaitable[None]]) -> None:
        try:
            await app(scope, inbox.get, send)
        except (ClientDisconnect, WebSocketDisconnect):
            pass  # the client went away while it was being read from or sent to: nothing is wrong, nobody to answer
        except Exception:
            self._count("app_failed")
            log.exception("server.app_failed", path=scope["path"])
        finally:
            await send(None)
