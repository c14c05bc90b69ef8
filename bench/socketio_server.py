"""python-socketio on uvicorn (uvloop, httptools, one process), its Redis manager on; runs in a venv of its own.

Run: .bench/socketio/bin/python -m bench.socketio_server 8790 redis://…
WebSocket transport only, no logging, no second ping of uvicorn's own: Engine.IO has one.
"""

import json
import sys
from typing import Any

import socketio  # type: ignore[import-not-found]
import uvicorn  # type: ignore[import-not-found]


def application(redis_url: str) -> Any:
    manager = socketio.AsyncRedisManager(redis_url)
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager, transports=["websocket"])

    @server.on("echo")  # type: ignore[untyped-decorator]
    async def echo(sid: str, data: str) -> str:
        return data

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        """POST emits its body to all; anything else is a health check."""
        status = 200
        if scope["method"] == "POST":
            message = await receive()
            await server.emit("broadcast", json.loads(message["body"]))
            status = 202
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return socketio.ASGIApp(server, plain)


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        backlog=4096,
        lifespan="off",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="warning",
    )
