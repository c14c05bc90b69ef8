"""Bare Starlette on plain hypercorn (uvloop, one process) with WebSockets: sockets in a set, a gather to send to all.

Run: python -m bench.bare_sockets 8790
The least that an application can do: no key, no limits, no bus, no queue or deadline for a slow reader.
"""

import asyncio
import signal
import sys

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

READY, PONG = '{"type":"ready"}', '{"type":"pong","id":"1"}'


def application() -> Starlette:
    sockets: set[WebSocket] = set()

    async def session(socket: WebSocket) -> None:
        await socket.accept()
        sockets.add(socket)
        try:
            await socket.send_text(READY)
            async for _ in socket.iter_text():
                await socket.send_text(PONG)
        finally:
            sockets.discard(socket)

    async def broadcast(request: Request) -> Response:
        text = (await request.body()).decode()
        await asyncio.gather(*(socket.send_text(text) for socket in sockets), return_exceptions=True)
        return Response(status_code=202)

    async def list_models(request: Request) -> Response:
        return JSONResponse({"models": []})

    return Starlette(
        routes=[
            WebSocketRoute("/ws", session),
            Route("/broadcast", broadcast, methods=["POST"]),
            Route("/api/v1/models", list_models),
        ]
    )


async def main(port: int) -> None:
    config = Config.from_mapping(
        bind=[f"127.0.0.1:{port}"],
        backlog=4096,
        keep_alive_timeout=75,
        keep_alive_max_requests=10**9,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(application(), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
