"""One request and its answer, for what a scenario must know besides its load."""

import asyncio
import json
from typing import Any

from bench.load import body_bytes
from bench.servers import Server


async def get_text(server: Server, request: str, status: int = 200) -> str:
    """The body of an answer with Content-Length; RuntimeError when its status is another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = (await reader.readexactly(body_bytes(head))).decode()
    finally:
        writer.close()
    if not head.startswith(f"HTTP/1.1 {status}".encode()):
        raise RuntimeError(f"{head.decode()}{body}")
    return body


async def get_json(server: Server, request: str, status: int = 200) -> Any:
    return json.loads(await get_text(server, request, status))
