"""A client of `GET /ws/session`, by the `websockets` library: what third parties use."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol
from urllib.parse import urlencode

import websockets
from pydantic import Field, TypeAdapter
from websockets.asyncio.client import ClientConnection

from service.live.protocol import SERVER_MESSAGES, ServerMessage

WAIT_S = 5.0
SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(Annotated[ServerMessage, Field(discriminator="type")])
FIELDS = {message.__name__.lower(): set(message.__annotations__) for message in SERVER_MESSAGES}


class Door(Protocol):
    """A node, in this process or another; `key` is used where no other is given."""

    url: str
    key: str


class Client:
    """`ready` is the first message. `hear` waits for the next of a type; what came before it is skipped."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.ready: dict[str, Any] = {}

    async def say(self, type_: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": type_, **fields}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        SERVER_MESSAGE.validate_python(message)  # nothing comes that the protocol does not know
        assert set(message) <= FIELDS[message["type"]]
        return message

    async def hear(self, type_: str) -> dict[str, Any]:
        while (message := await self.next())["type"] != type_:
            pass
        return message

    async def until(self, *types: str) -> list[dict[str, Any]]:
        """Everything up to the first message of one of these types."""
        messages = [await self.next()]
        while messages[-1]["type"] not in types:
            messages.append(await self.next())
        return messages

    async def closed(self) -> tuple[int, str]:
        """Wait for the end: its code and reason as the server gave them; 1006 when it said nothing."""
        try:
            while True:
                await self.next()
        except websockets.ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")


def url(node: Door, **query: str) -> str:
    return f"{node.url.replace('http', 'ws')}/ws/session" + (f"?{urlencode(query)}" if query else "")


@asynccontextmanager
async def socket(
    node: Door, key: str | None = None, headers: Mapping[str, str] | None = None, **query: str
) -> AsyncIterator[Client]:
    """An open socket that has been told `ready`, of the node's own key unless told; an empty key sends none."""
    own = node.key if key is None else key
    sent = {"x-api-key": own} if own else {}
    async with websockets.connect(url(node, **query), additional_headers={**sent, **(headers or {})}) as connection:
        client = Client(connection)
        client.ready = await client.next()
        yield client


async def refusal(node: Door, key: str | None = None, headers: Mapping[str, str] | None = None, **query: str) -> Any:
    """The status and problem of a handshake that is refused."""
    try:
        async with socket(node, key, headers, **query):
            return 101, {}
    except websockets.InvalidStatus as refused:
        return refused.response.status_code, json.loads(bytes(refused.response.body or b"{}"))


async def turned_away(node: Door, key: str | None = None, **query: str) -> tuple[int, str]:
    """The code and reason of a socket that is accepted only to be closed."""
    own = node.key if key is None else key
    async with websockets.connect(url(node, **query), additional_headers={"x-api-key": own}) as connection:
        return await Client(connection).closed()
