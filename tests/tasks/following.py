"""A client of `GET /api/v1/tasks/{id}/events`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

from tests.nodes import RunningNode

WAIT_S = 10.0
ENDS = ("done", "failed", "cancelled", "error")


class Told(NamedTuple):
    """One event; `id` is empty where it has none."""

    name: str
    data: dict[str, Any]
    id: str


class Reader:
    """`next` waits for the next event; comments are skipped. `line` is the next line of any kind."""

    COMMENT = ": "

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Told | None:
        """None when the stream is over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and "event" in fields:
                    return Told(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields[name] = value
        return None

    async def line(self) -> str:
        async with asyncio.timeout(WAIT_S):
            return await anext(self._lines)

    async def rest(self) -> list[Told]:
        found = []
        while (told := await self.next()) is not None:
            found.append(told)
        return found

    async def until(self, name: str) -> list[Told]:
        """Up to the first of this name."""
        found = []
        while not found or found[-1].name != name:
            told = await self.next()
            assert told is not None, f"the stream ended before {name}: {found}"
            found.append(told)
        return found


@asynccontextmanager
async def following(node: RunningNode, task_id: str, last_id: str = "", key: str = "") -> AsyncIterator[Reader]:
    headers = ({"last-event-id": last_id} if last_id else {}) | ({"x-api-key": key} if key else {})
    async with node.http.stream("GET", f"/api/v1/tasks/{task_id}/events", headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        yield Reader(response)


def names(told: list[Told]) -> list[str]:
    """In order, several pieces in a row as one."""
    found = [event.name for event in told]
    return [name for name, before in zip(found, ["", *found], strict=False) if (name, before) != ("delta", "delta")]


def text_of(told: list[Told], agent: str = "reasoning") -> str:
    """Of the pieces; each must begin where the one before ended."""
    text = ""
    for event in told:
        if event.name == "delta" and event.data["agent"] == agent:
            text = "" if event.data["at"] == 0 else text
            assert event.data["at"] == len(text)
            text += event.data["text"]
    return text
