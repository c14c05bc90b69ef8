"""Commands that many callers want at the same time go to Redis together: fewer round trips, a handful of connections.

Fifty single calls at once open fifty connections, and on a busy node some of them run into REDIS_REQUEST_TIMEOUT for
that alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from redis.exceptions import ResponseError

from service.background import end, shared_task
from service.errors import StateUnavailable
from service.state.redis import Client, RedisState, state_error
from service.telemetry.operations import Wait, wait_for

# With values of a megabyte each, what one round trip carries within the timeout.
BATCH = 16
# Round trips at the same time: another one begins only where a whole batch waits for those under way, since all who
# wait go together with the next, at a fifth of what each alone would cost.
LANES = 4

Command = Callable[[Client], object]  # one command, for redis-py's pipeline or its client: `lambda p: p.get(name)`
Asked = tuple[Command, asyncio.Future[Any], Wait]  # by one caller, who waits


class Pipeline:
    """`await pipeline.run(lambda p: p.get(name))`; a lane lives while there is something to send. Not atomic."""

    def __init__(self, redis: RedisState, operation: str) -> None:
        """`operation` is the label of its round trips in `db_client_operation_duration_seconds`."""
        self._redis, self._operation = redis, operation
        self._waiting: deque[Asked] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    async def run(self, command: Command) -> Any:
        """The command's answer. Raises StateUnavailable, or StateRejected for this command alone."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with wait_for(self._operation) as wait:
            self._waiting.append((command, answer, wait))
            if not self._lanes or (len(self._waiting) >= BATCH and len(self._lanes) < LANES):
                self._begin()
            return await answer

    async def close(self) -> None:
        await end(*self._lanes)
        self._fail(list(self._waiting), StateUnavailable(f"{self._operation}: closed"))

    def _begin(self) -> None:
        lane = shared_task(self._send_all(), "redis-pipeline")
        self._lanes.add(lane)
        lane.add_done_callback(self._ended)

    def _ended(self, lane: asyncio.Task[None]) -> None:
        """It ends where nothing waits; those whom its last answers brought back have come since."""
        self._lanes.discard(lane)
        if self._waiting and not lane.cancelled():
            self._begin()

    async def _send_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._send(batch)
            except StateUnavailable as error:
                self._fail([*batch, *self._waiting], error)  # those behind would wait as long, to hear the same
                self._waiting.clear()
            finally:
                self._fail(batch, StateUnavailable(f"{self._operation}: closed"))  # where this lane was ended

    async def _send(self, batch: Sequence[Asked]) -> None:
        asked = [one for one in batch if not one[1].done()]  # some have left meanwhile
        if not asked:
            return
        for _, _, wait in asked:
            wait.sent()
        commands = [command for command, _, _ in asked]
        results = await self._redis.run(self._operation, lambda client: together(client, commands))
        for (_, answer, _), result in zip(asked, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(state_error(self._operation, result))
            else:
                answer.set_result(result)

    def _fail(self, batch: Sequence[Asked], error: StateUnavailable) -> None:
        for _, answer, _ in batch:
            if not answer.done():
                answer.set_exception(error)


async def together(client: Client, commands: Sequence[Command]) -> list[Any]:
    """The answers in order, an exception in the place of a command that was refused."""
    if len(commands) == 1:  # a pipeline for one command costs three times as much
        try:
            return [await cast(Awaitable[Any], commands[0](client))]
        except ResponseError as error:
            return [error]
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            command(pipe)
        results: list[Any] = await pipe.execute(raise_on_error=False)
        return results
