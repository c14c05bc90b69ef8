"""Bare Starlette on plain hypercorn (uvloop, one process): the bytes it is given, nothing else.

Run: python -m bench.bare 8790 '{"models": []}'
"""

import asyncio
import signal
import sys

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def main(port: int, body: bytes) -> None:
    async def list_models(request: Request) -> Response:
        return Response(body, media_type="application/json")

    async def chat(request: Request) -> Response:
        await request.body()
        return Response(body, media_type="application/json")

    config = Config.from_mapping(
        bind=[f"127.0.0.1:{port}"],
        backlog=4096,
        keep_alive_timeout=75,
        keep_alive_max_requests=10**9,  # it would close after 1,000, and pay for the reconnects
    )
    app = Starlette(routes=[Route("/api/v1/models", list_models), Route("/api/v1/chat", chat, methods=["POST"])])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2].encode()))
