"""Which event loop, and what our server costs or saves beside hypercorn's: `.venv/bin/python -m bench.event_loop`.

The server is pinned to core 0 and the load to core 1. Rounds are interleaved; medians are printed.
JSON: a trivial Starlette route, 32 keep-alive connections. Echo: 32 WebSockets, 100 bytes to and fro.
Each as "per second (per second of the server's CPU)": the second is the steadier where a machine is shared.
Memory: resident bytes per idle WebSocket, 2,000 of them.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from service.server.server import Server, ServerConfig, stop_on_signals

PORT = 8790
ROUNDS, SECONDS, CLIENTS, IDLE = 5, 3.0, 32, 2_000
JSON_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\nUser-Agent: bench\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAME = b"\x81\xe4\0\0\0\0" + b"x" * 100
ECHOED = b"x" * 100


async def answer(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world"})


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


app = Starlette(routes=[Route("/", answer), WebSocketRoute("/ws", echo)])


async def serve_ours() -> None:
    config = ServerConfig(port=PORT, private_port=PORT + 1)
    await Server(app, app, config).run(stop_on_signals())


async def serve_plain() -> None:
    config = Config.from_mapping(bind=[f"127.0.0.1:{PORT}"], backlog=4096, keep_alive_timeout=75)
    await serve(app, config, shutdown_trigger=stop_on_signals().wait)  # type: ignore[arg-type]


class Client(asyncio.Protocol):
    """Sends `question` again whenever an answer that ends in `ending` is complete."""

    answers = 0

    def __init__(self, question: bytes, ending: bytes, opening: bytes = b"") -> None:
        self.question, self.ending, self.opening = question, ending, opening
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.opening or self.question)

    def data_received(self, data: bytes) -> None:
        if self.opening and not self.open.done():
            self.open.set_result(None)
            self.transport.write(self.question)
        elif data.endswith(self.ending):
            Client.answers += 1
            self.transport.write(self.question)

    def connection_lost(self, error: Exception | None) -> None:
        loop = asyncio.get_running_loop()  # hypercorn closes after 1,000 requests: connect again
        self.again = loop.create_task(loop.create_connection(lambda: self, "127.0.0.1", PORT))


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def rate(process: psutil.Process, question: bytes, ending: bytes, opening: bytes = b"") -> tuple[float, float]:
    """Answers a second, and a second of the server's CPU."""
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: Client(question, ending, opening), "127.0.0.1", PORT)
        for _ in range(CLIENTS)
    ]
    await asyncio.sleep(0.5)  # warm
    Client.answers, began, cpu = 0, time.perf_counter(), cpu_s(process)
    await asyncio.sleep(SECONDS)
    result = Client.answers / (time.perf_counter() - began), Client.answers / (cpu_s(process) - cpu)
    for transport, client in clients:
        client.connection_lost = lambda error: None  # type: ignore[method-assign]
        transport.abort()
    return result


async def idle_bytes(process: psutil.Process) -> float:
    before = process.memory_info().rss
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(b"", b"-", UPGRADE), "127.0.0.1", PORT))[1] for _ in range(IDLE)
    ]
    await asyncio.gather(*(client.open for client in clients))
    return (process.memory_info().rss - before) / IDLE


async def measure(process: psutil.Process) -> tuple[float, ...]:
    memory = await idle_bytes(process)
    return *await rate(process, JSON_REQUEST, b"}"), *await rate(process, FRAME, ECHOED, UPGRADE), memory


def round_of(server: str, loop: str) -> tuple[float, ...]:
    command = ["taskset", "-c", "0", sys.executable, "-m", "bench.event_loop", server, loop]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        process = psutil.Process(child.pid)
        while not any(c.status == "LISTEN" and c.laddr.port == PORT for c in process.net_connections()):
            assert child.poll() is None, "the server ended: is the port taken?"
            time.sleep(0.05)
        try:
            return uvloop.run(measure(process))
        finally:
            child.kill()


def main() -> None:
    os.sched_setaffinity(0, {1})
    kinds = [(server, loop) for loop in ("asyncio", "uvloop") for server in ("plain", "ours")]
    figures: dict[tuple[str, str], list[tuple[float, ...]]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            figures[kind].append(round_of(*kind))
    print("| server | loop | JSON req/s | echo msg/s | KB per idle socket |\n|---|---|---|---|---|")
    for (server, loop), rows in figures.items():
        json, json_cpu, echoes, echoes_cpu, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"| {server} | {loop} | {json:,.0f} ({json_cpu:,.0f}) | {echoes:,.0f} ({echoes_cpu:,.0f}) "
            f"| {memory / 1024:.1f} |"
        )


if __name__ == "__main__":
    servers: dict[str, Callable[[], Awaitable[None]]] = {"plain": serve_plain, "ours": serve_ours}
    if len(sys.argv) == 3:
        (uvloop.run if sys.argv[2] == "uvloop" else asyncio.run)(servers[sys.argv[1]]())  # type: ignore[arg-type]
    else:
        main()
