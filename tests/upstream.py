"""A scripted model server: the stand-in for a paid one, with their faults. The model's name is the script."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.scripted import listening, read_request

WORDS = ["Paris", " is", " the", " capital."]
USAGES: dict[str, Any] = {
    "no-usage": {},
    "absurd-usage": {"usage": {"prompt_tokens": 3_000_000_000, "completion_tokens": 4}},
    "negative-usage": {"usage": {"prompt_tokens": 7, "completion_tokens": -5}},
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 4}


@dataclass
class Upstream:
    """What was asked of it, and how many calls are open now."""

    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    open: int = 0
    ended_early: int = 0
    to_fail: int = 0  # so many calls of the model `recovers` it refuses yet

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


SCRIPTS = (
    "good",
    "no-usage",
    "slow",
    "recovers",
    "silent",
    "refuses",
    "overloaded",
    "too-long",
    "garbage",
    "empty",
    "dies",
    "stalls",
    "breaks-off",
    "error-event",
    "endless-line",
    "absurd-usage",
    "negative-usage",
    "redirects",
    "elsewhere",
    "huge",
)


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Serve the scripts on a free port."""
    state = Upstream()
    async with listening(partial(answer, state)) as state.port:
        yield state


async def answer(state: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, headers, raw = await read_request(reader)
    body = json.loads(raw or b"{}")
    state.headers.append(headers)
    state.bodies.append(body)
    state.open += 1
    script = body["model"]
    if script == "recovers" and state.to_fail:
        state.to_fail, script = state.to_fail - 1, "overloaded"
    try:
        await play(reader, writer, script, body.get("stream", False))
    except (ConnectionError, Gone):
        state.ended_early += 1
        writer.close()
    finally:
        state.open -= 1


class Gone(Exception):
    """The caller closed its connection while we were about to speak."""


async def pause(reader: asyncio.StreamReader, seconds: float) -> None:
    """Sleep, but notice a caller that leaves."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return
    raise Gone


async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, script: str, stream: bool) -> None:
    match script:
        case "silent":
            await pause(reader, 60)
        case "refuses":
            await reply(writer, b'{"error": {"message": "the key sk-secret is wrong"}}', "401 Unauthorized")
        case "redirects":
            await reply(writer, b"", "307 Temporary Redirect\r\nlocation: /v1/elsewhere")
        case "overloaded":
            await reply(writer, b"{}", "503 Service Unavailable")
        case "too-long":
            await reply(writer, b'{"error": {"message": "the context is too long"}}', "400 Bad Request")
        case "garbage":
            await reply(writer, b"<html>not json</html>")
        case "empty":
            await reply(writer, b'{"choices": []}')
        case "huge" if not stream:
            await reply(writer, b'{"choices": [{"message": {"content": "' + b"x" * 200_000 + b'"}}]}')
        case "dies" if not stream:
            writer.transport.abort()
        case "slow" if not stream:
            await pause(reader, 0.5)
            await reply(writer, whole(script))
        case _ if stream:
            await play_stream(reader, writer, script)
        case _:
            await reply(writer, whole(script))


async def play_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, script: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    for word in WORDS:
        piece = {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        await send(writer, json.dumps(piece).encode())
        match script:
            case "dies":
                writer.transport.abort()
                return
            case "stalls":
                await pause(reader, 60)
            case "breaks-off":
                raise ConnectionError
            case "error-event":
                await send(writer, b'{"error": {"message": "overloaded"}}')
            case "endless-line":
                writer.write(b"data: " + b"x" * 2_000_000)
            case "huge":
                await send(writer, json.dumps({"choices": [{"delta": {"content": "x" * 100_000}}]}).encode())
            case "slow":
                await pause(reader, 0.2)
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    await send(writer, json.dumps(last).encode())
    await send(writer, json.dumps({"choices": []} | USAGES.get(script, {"usage": USAGE})).encode())
    await send(writer, b"[DONE]")
    raise ConnectionError  # we said connection: close


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"data: " + data + b"\n\n")
    await writer.drain()


def whole(script: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice]} | USAGES.get(script, {"usage": USAGE})).encode()


async def reply(writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK") -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
