"""A user of the tasks: submits them over HTTP, and reads off their rows what became of them, and when."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.http import get_json
from bench.load import request
from bench.servers import Server

BATCH = 1000  # the most that one request may bring
LOOK_S = 0.005
PATIENCE_S = 30.0
SELECT_STARTED = "SELECT extract(epoch FROM started_at)::float FROM tasks WHERE id = %s AND started_at IS NOT NULL"
# Whoever's: the first task that ended since, which is when a worker could begin this one.
SELECT_FREED = """
SELECT extract(epoch FROM min(finished_at))::float FROM tasks
WHERE finished_at >= (SELECT created_at FROM tasks WHERE id = %s)"""
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Lone:
    """One task's moments, in seconds of the epoch: the client's clock and PostgreSQL's are one machine's."""

    asked: float
    accepted: float
    started: float
    freed: float | None  # a task of anybody ended, the first since this one was made

    @property
    def from_free_us(self) -> int:
        """How long it waited from when there was a free place; below 0 it took one that was free before."""
        free = self.accepted if self.freed is None else max(self.asked, self.freed)
        return round(1e6 * (self.started - free))


class TaskClient:
    """`rows`: a connection in autocommit, to look at rows with."""

    def __init__(self, server: Server, key: str, rows: psycopg.AsyncConnection[Any]) -> None:
        self._server, self._key, self._rows = server, key, rows

    async def submit(self, tasks: int, **more: object) -> list[str]:
        """Their ids; every text is another, so that no cache answers."""
        ids: list[str] = []
        while len(ids) < tasks:
            batch = [self._task(**more) for _ in range(min(BATCH, tasks - len(ids)))]
            made = await get_json(self._server, self._request({"tasks": batch}), 202)
            ids += made["ids"]
        return ids

    @staticmethod
    def _task(**more: object) -> dict[str, object]:
        return {"agent": "reasoning", "task": f"What comes after {next(NUMBERS)}?", **more}

    def _request(self, body: object) -> str:
        return request("POST", "/api/v1/tasks", body, x_api_key=self._key)

    async def lone(self) -> Lone:
        """Submit one, and wait until it starts."""
        asked = time.time()
        (task_id,) = (await get_json(self._server, self._request(self._task()), 202))["ids"]
        accepted = time.time()
        started = await self._started(task_id)
        return Lone(asked, accepted, started, await self._value(SELECT_FREED, task_id))

    async def _started(self, task_id: str) -> float:
        async with asyncio.timeout(PATIENCE_S):
            while (started := await self._value(SELECT_STARTED, task_id)) is None:
                await asyncio.sleep(LOOK_S)
        return float(started)

    async def _value(self, sql: str, *parameters: object) -> Any:
        row = await (await self._rows.execute(sql.encode(), parameters)).fetchone()
        return row and row[0]
