"""`GET /api/v1/tasks/{id}/events`: what a task is, then what becomes of it, as server-sent events until its end.

The bus tells what happens, and may lose some of it: a worker without Redis, a gap. The row never does, so it is looked
at every LOOK_EVERY_S, and at once where something may be lost.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from service.errors import BadRequest, DatabaseUnavailable, NotFound, TooMany
from service.http.contract import answers
from service.http.operation import Call
from service.http.sse import KEEP_ALIVE, EventStream, event
from service.http.streams import Streams
from service.limits.slots import Slots
from service.live.bus import Bus
from service.live.watches import Heard, Key, Watch, Watches, about
from service.routes.task_answers import brief, event_of
from service.routes.task_requests import LastEventHeader, TaskPath
from service.routes.tasks import UNCACHED, task_id
from service.tasks.queue import Tasks
from service.tasks.records import OPEN, Task

# Also how often a quiet stream says that it is alive; proxies wait a minute.
LOOK_EVERY_S = 10.0


class TaskEvents:
    """A stream counts as one of its key's; it ends with its task, its key, or the node's drain."""

    def __init__(self, tasks: Tasks, watches: Watches, bus: Bus, slots: Slots, streams: Streams) -> None:
        self._tasks, self._watches, self._bus, self._slots, self._streams = tasks, watches, bus, slots, streams

    @answers(
        None,
        media=("text/event-stream",),
        segments=TaskPath,
        headers=LastEventHeader,
        tells=UNCACHED,
        errors=(NotFound, TooMany),
    )
    async def follow(self, call: Call[None]) -> EventStream:
        """Follow a task until it is done, failed or cancelled."""
        user_id, asked = call.identity.user_id, task_id(call)
        key = user_id, str(asked)
        async with AsyncExitStack() as taken:
            await taken.enter_async_context(self._slots.held(call.identity))
            watch = taken.enter_context(self._watches.following(key))  # before the row is read: nothing falls between
            position = self._bus.position
            missed = self._missed(call.request.headers.get("last-event-id", ""), key)
            task = await self._tasks.read(user_id, asked)
            kept = taken.pop_all()
        events = Follower(self._tasks, watch, user_id, asked).events(task, missed, position)
        return EventStream(events, self._streams.held(call.identity), taken=kept)

    def _missed(self, last_id: str, key: Key) -> list[Heard] | None:
        """What was told of the task after this place; None where that cannot be known."""
        try:
            missed = self._bus.missed(last_id)
        except BadRequest:
            return None
        if missed is None:
            return None
        return [Heard(entry.seq, entry.message.payload) for entry in missed if key in about(entry.message)]


class Follower:
    """Writes the events of one stream."""

    def __init__(self, tasks: Tasks, watch: Watch, user_id: str, task_id: UUID) -> None:
        self._tasks, self._watch, self._user_id, self._task_id = tasks, watch, user_id, task_id
        self._told: tuple[Any, Any] | None = None  # status and attempts, as the client knows them
        self._look_at_s = 0.0
        self._gone = False  # the row was deleted

    @property
    def _over(self) -> bool:
        return self._gone or (self._told is not None and self._told[0] not in OPEN)

    async def events(self, task: Task, missed: list[Heard] | None, position: str) -> AsyncGenerator[bytes, None]:
        """From the row as it is now, or what was `missed`, on; the bus is at `position`."""
        self._next_look()
        for heard in missed or ():
            if chunk := self._written(heard):
                yield chunk
        if missed is None or (task.status not in OPEN and not self._over):
            yield self._state(task, position)
        while not self._over:
            news = await self._watch.next(self._look_at_s)
            if self._watch.ended:
                return
            if chunk := self._written(news) if news else await self._look():
                yield chunk

    def _written(self, heard: Heard) -> bytes:
        """Nothing for what the client knows. What goes back from running to queued may only be late: the row tells."""
        name, task = heard.payload.get("event"), heard.payload["task"]
        if name == "delta":
            return event(name, heard.payload, heard.seq)
        state = task.get("status"), task.get("attempts")
        if state == self._told:
            return b""
        if not isinstance(name, str) or (self._told and self._told[0] == "running" and name == "queued"):
            self._watch.doubt()
            return b""
        self._told = state
        return event(name, heard.payload, heard.seq)

    async def _look(self) -> bytes:
        self._next_look()
        try:
            if await self._tasks.state(self._user_id, self._task_id) == self._told:
                return KEEP_ALIVE
            return self._state(await self._tasks.read(self._user_id, self._task_id))
        except DatabaseUnavailable:
            return KEEP_ALIVE
        except NotFound:
            self._gone = True
            return b""

    def _next_look(self) -> None:
        self._look_at_s = asyncio.get_running_loop().time() + LOOK_EVERY_S

    def _state(self, task: Task, place: str | None = None) -> bytes:
        self._told = task.status, task.attempt
        name = event_of(task.status)
        return event(name, {"event": name, "task": brief(task)}, place)
