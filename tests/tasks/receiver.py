"""A receiver of callbacks: somebody's HTTP server, scripted by the path. It keeps what it was sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import from_json

from tests.scripted import listening, read_request


@dataclass(frozen=True)
class Callback:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def told(self) -> dict[str, Any]:
        body: dict[str, Any] = from_json(self.raw)
        return body


@dataclass
class Receiver:
    """`/good` takes it; `/<status>` answers with that; `/slow` is silent, as is `/once-slow` the first time;
    `/once-500` fails the first time; `/long` has an endless answer. `to_hang` so many more are not answered."""

    port: int = 0
    taken: list[Callback] = field(default_factory=list)
    to_hang: int = 0

    def url(self, script: str) -> str:
        return f"http://127.0.0.1:{self.port}/{script}"

    @property
    def beginning(self) -> str:
        return self.url("")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    state = Receiver()
    async with listening(partial(answer, state)) as state.port:
        yield state


async def answer(state: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path, headers, raw = await read_request(reader)
    state.taken.append(Callback(path, headers, raw))
    script = path.strip("/").partition("?")[0]
    first = script.startswith("once-") and len([taken for taken in state.taken if taken.path == path]) == 1
    script = script.removeprefix("once-") if first else script
    if state.to_hang:
        state.to_hang, script = state.to_hang - 1, "slow"
    match script:
        case "slow":
            await reader.read(1)  # until the caller leaves
            raise ConnectionError
        case "long":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        case "307":
            await reply(writer, f"307 Temporary Redirect\r\nlocation: {state.url('good')}")
        case "429":
            await reply(writer, "429 Too Many Requests\r\nretry-after: 1800")
        case _ if script.isdigit():
            await reply(writer, f"{script} Scripted")
        case _:
            await reply(writer, "204 No Content")


async def reply(writer: asyncio.StreamWriter, status: str) -> None:
    length = b"" if status.startswith("204") else b"content-length: 0\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n".encode() + length + b"\r\n")
    await writer.drain()
