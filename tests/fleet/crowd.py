"""Many clients at once, each of which keeps what it hears and when."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import websockets
from websockets.asyncio.client import ClientConnection

from tests.live.clients import url
from tests.processes import NodeProcess

# Handshakes under way at the same time; more only wait for each other.
OPENING = 50


class Member:
    """A client with one socket at a time. `heard` goes on over a reconnect; `ended` is the last close, and when."""

    def __init__(self, node: NodeProcess, key: str = "", **query: str) -> None:
        self.node, self._key, self._query = node, key or node.key, query
        self.heard: list[dict[str, Any]] = []  # broadcasts, each with its arrival under `at`
        self.others: list[dict[str, Any]] = []  # every other message
        self.ended: tuple[int, str] | None = None
        self.ended_at = 0.0
        self.connection: ClientConnection
        self._listening: asyncio.Task[None] | None = None

    async def open(self, node: NodeProcess | None = None, **query: str) -> None:
        """Connect, to the same node or another, and be told `ready`."""
        self.node, self.ended = node or self.node, None
        address = url(self.node, **{**self._query, **query})
        # No pings of its own: a frozen node is not to be given up.
        self.connection = await websockets.connect(
            address, additional_headers={"x-api-key": self._key}, ping_interval=None, open_timeout=20
        )
        self.ready: dict[str, Any] = json.loads(await self.connection.recv())
        assert self.ready["type"] == "ready"
        self._listening = asyncio.create_task(self._listen())

    async def come_back(self, node: NodeProcess) -> None:
        """Connect with the last seq that it was told."""
        await self.open(node, last_seq=self.last_seq)

    @property
    def last_seq(self) -> str:
        return str(self.heard[-1]["seq"] if self.heard else self.ready["seq"])

    @property
    def session_id(self) -> str:
        return str(self.ready["session_id"])

    async def _listen(self) -> None:
        try:
            async for text in self.connection:
                message = json.loads(text)
                kept = self.heard if message["type"] == "broadcast" else self.others
                kept.append(message | {"at": time.monotonic()})
        except websockets.ConnectionClosedError:
            pass
        closed = self.connection.protocol.close_rcvd
        self.ended_at = time.monotonic()
        self.ended = (closed.code, closed.reason) if closed else (1006, "")

    async def say(self, type_: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": type_, **fields}))

    def ids(self) -> list[str]:
        return [message["id"] for message in self.heard]

    def doubled(self) -> list[str]:
        return [id_ for id_, count in Counter(self.ids()).items() if count > 1]

    def vanish(self) -> None:
        """As a phone in a tunnel: no word, no close."""
        self.connection.transport.abort()

    async def leave(self) -> None:
        if self._listening is not None:
            self.connection.transport.abort()
            await self._listening


@asynccontextmanager
async def crowd(*members: Member) -> AsyncIterator[list[Member]]:
    """All of them connected; they are gone at the end."""
    try:
        await opened(members)
        yield list(members)
    finally:
        await asyncio.gather(*(member.leave() for member in members))


async def opened(members: Iterable[Member]) -> None:
    """Connect them, some at a time."""
    places = asyncio.Semaphore(OPENING)

    async def one(member: Member) -> None:
        async with places:
            await member.open()

    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(one(member))


def on_each(nodes: Iterable[NodeProcess], count: int, key: str = "", **query: str) -> list[Member]:
    """So many on every node."""
    return [Member(node, key, **query) for node in nodes for _ in range(count)]


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def broadcast(node: NodeProcess, text: str = "hello", /, **fields: Any) -> dict[str, Any]:
    """Ask a node to tell everybody, or the audience in `fields`; what it answers."""
    answer = await node.http.post("/api/admin/broadcast", json={"message": text, **fields})
    assert answer.status_code == 202, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def handshake(node: NodeProcess, key: str = "") -> httpx2.Response:
    """The answer to a WebSocket handshake that is refused."""
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    headers = {**upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "x-api-key": key or node.key}
    return await node.http.get("/ws/session", headers=headers)
