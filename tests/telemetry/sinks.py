"""Scripted collectors: an OTLP/HTTP receiver and a Sentry ingest; either may be made silent."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.scripted import listening, read_request


@dataclass
class Sink:
    """The bodies that were posted to it, by path."""

    port: int = 0
    silent: bool = False
    asked: int = 0  # requests that came, answered or not
    status: int = 200
    headers: str = ""  # further ones of its answers, each with its line break
    posts: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def otlp_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sentry_dsn(self) -> str:
        return f"http://publickey@127.0.0.1:{self.port}/1"

    def spans(self) -> list[Any]:
        """Every span received, parsed from the real protobuf."""
        found = []
        for path, body in self.posts:
            if path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                found += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return found

    def events(self) -> list[dict[str, Any]]:
        """Every Sentry event."""
        return self.items("event")

    def check_ins(self) -> list[dict[str, Any]]:
        """Every check-in of a Sentry monitor."""
        return self.items("check_in")

    def items(self, kind: str) -> list[dict[str, Any]]:
        """An envelope is JSON lines, the item after its header."""
        found = []
        for path, body in self.posts:
            if path.startswith("/api/1/envelope"):
                lines = body.split(b"\n")
                found += [
                    json.loads(lines[number + 1])
                    for number, line in enumerate(lines[:-1])
                    if line.startswith(b"{") and json.loads(line).get("type") == kind and b'"length"' in line
                ]
        return found


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    state = Sink()
    async with listening(partial(receive, state)) as state.port:
        yield state


async def receive(state: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path, headers, body = await read_request(reader)
    state.asked += 1
    if state.silent:
        await asyncio.sleep(3600)
    state.posts.append((path, gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body))
    head = f"HTTP/1.1 {state.status} Scripted\r\ncontent-length: 2\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}{state.headers}\r\n{{}}".encode())
    await writer.drain()
