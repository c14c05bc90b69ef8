"""The load generator: a process of its own that speaks raw HTTP/1.1 over keep-alive connections (uvloop).

Run: python -m bench.load '{"port": 8000, "request": "GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n", "clients": 16}'
It prints one JSON document. Two loads:

plain   closed loop: each client sends its next request when it has the whole answer to the last one
streams each client opens one stream; the starts are spread over `spread_s`. A token is the time it was sent
        (`bench/scripted_upstream.py`), so its lateness is now minus the token, whatever relayed it

Beside rate and quantiles it tells: `cpu_share`, how much of its core the generator used (near 1 it would be the
bottleneck, not the server); `server_cpu_us`, the server's own time per answer or token; `others_share`, how much of the
server's core other processes took meanwhile.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from bench.machine import SERVER_CORE, core_busy_s, cpu_s
from bench.output import printed

STAMP = re.compile(rb'"(\d{16})"')
STAMP_BYTES = 18
STREAM_END = b"0\r\n\r\n"  # the last chunk of HTTP/1.1 chunked coding
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END_GRACE_S = 3.0  # a stream that is not over by then is cut, and counted


@dataclass(frozen=True)
class Plan:
    """What to send, and how long to look at the answers (after `warm_s` that do not count)."""

    port: int
    request: str
    clients: int
    pid: int = 0  # of the server under test
    seconds: float = 3.0
    warm_s: float = 1.0
    spread_s: float = 0.0
    streams: bool = False


class Client(asyncio.Protocol):
    """One connection after another to the server; what a client has seen is in `samples`, in us."""

    def __init__(self, plan: Plan) -> None:
        self._port, self._request = plan.port, plan.request.encode("latin-1")
        self.samples: list[int] = []
        self.failed = self.reconnects = 0
        self.stopped = False
        self._rest = b""

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopped:  # plain hypercorn closes after so many requests; uvicorn and ATP do not
            self.reconnects += 1
            self._rest = b""
            self._again = asyncio.get_running_loop().create_task(self.connect())

    def stop(self) -> None:
        self.stopped = True
        self._transport.abort()

    def _send(self) -> None:
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._request)


class PlainClient(Client):
    """Closed loop; a sample is the time from a request to the last byte of its answer."""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or len(data) < end + body_bytes(data[:end]):
            self._rest = data
            return
        self._rest = b""
        self.samples.append((time.monotonic_ns() - self._sent_ns) // 1_000)
        self.failed += not data.startswith(b"HTTP/1.1 200")
        self._send()


class StreamClient(Client):
    """One stream; a sample is one token's lateness."""

    over = False

    def data_received(self, data: bytes) -> None:
        now_us = time.monotonic_ns() // 1_000
        data = self._rest + data
        last = 0
        for found in STAMP.finditer(data):
            self.samples.append(now_us - int(found[1]))
            last = found.end()
        self._rest = data[max(last, len(data) - STAMP_BYTES) :]  # a token may be cut between two reads
        if data.endswith(STREAM_END):
            self.over = True
            self.stop()

    def connection_lost(self, error: Exception | None) -> None:
        self.stopped = True


def body_bytes(head: bytes) -> int:
    length = CONTENT_LENGTH.search(head)
    if length is None:
        raise ValueError(f"an answer without Content-Length: {head!r}")
    return int(length[1])


class Meter:
    """Who used how much processor time since it was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        server_s = cpu_s(self._pid) if self._pid else 0.0
        return time.perf_counter(), time.process_time(), server_s, core_busy_s(SERVER_CORE)

    def read(self, samples: int) -> dict[str, float]:
        seconds, own_s, server_s, busy_s = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return {
            "per_s": samples / seconds,
            "cpu_share": own_s / seconds,
            "server_cpu_us": 1e6 * server_s / max(1, samples),
            "others_share": max(0.0, busy_s - server_s) / seconds,
        }


async def measure(plan: Plan) -> dict[str, float]:
    """Warm up, look, stop; the document that is printed."""
    clients: list[Client] = [(StreamClient if plan.streams else PlainClient)(plan) for _ in range(plan.clients)]
    await start(clients, plan.spread_s)
    await asyncio.sleep(plan.warm_s)
    for client in clients:
        client.samples.clear()
    meter = Meter(plan.pid)
    await asyncio.sleep(plan.seconds)
    samples = sorted(sample for client in clients for sample in client.samples)
    usage = meter.read(len(samples))
    if plan.streams:
        await finish(clients)
    for client in clients:
        client.stop()
    return {**summary(samples), **usage, **faults(clients)}


def faults(clients: list[Client]) -> dict[str, float]:
    cut = sum(not client.over for client in clients if isinstance(client, StreamClient))
    return {
        "failed": sum(client.failed for client in clients) + cut,
        "reconnects": sum(client.reconnects for client in clients),
    }


def summary(samples: list[int]) -> dict[str, float]:
    """`samples` sorted, in us."""
    quantiles = {f"p{share}_ms": samples[len(samples) * share // 100] / 1000 for share in (50, 99) if samples}
    return {"count": len(samples), **quantiles}


async def start(clients: list[Client], spread_s: float) -> None:
    """Evenly over `spread_s`, by the clock: a slow connect delays no other."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, client in enumerate(clients):
        await asyncio.sleep(max(0.0, began + spread_s * number / len(clients) - loop.time()))
        await client.connect()


async def finish(clients: list[Client]) -> None:
    """Let the streams come to their own end, so that the next load meets a server at rest."""
    until = time.monotonic() + END_GRACE_S
    for client in clients:
        while not client.stopped and time.monotonic() < until:
            await asyncio.sleep(0.05)


async def run_load(plan: Plan) -> dict[str, float]:
    """Run a generator process, and return what it printed; it inherits this process's cores."""
    patience_s = plan.spread_s + plan.warm_s + plan.seconds + END_GRACE_S + 30
    return await printed(sys.executable, "-m", "bench.load", json.dumps(asdict(plan)), patience_s=patience_s)


def request(method: str, path: str, body: object = None, **headers: str) -> str:
    """One HTTP/1.1 request as text; underscores in header names become dashes."""
    payload = "" if body is None else json.dumps(body)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if payload:
        lines += ["content-type: application/json", f"content-length: {len(payload)}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: bench", *lines, "", payload])


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(Plan(**json.loads(sys.argv[1]))))))
