"""A scripted OpenAI-compatible server: a model whose timing is known, for benches (stdlib, uvloop when present).

Run: python -m bench.scripted_upstream --port 9100 --delay-ms 20 --tokens 16 --interval-ms 20
It prints `ready http://127.0.0.1:9100/v1` once it listens (port 0 picks a free one) and leaves on SIGTERM.

POST /v1/chat/completions   plain: answers `delay-ms` after the request's last byte, with `usage`
                            stream: first token after `delay-ms`, then one each `interval-ms`, then `[DONE]`
GET  /v1/models             one model, "scripted"
GET  /stats                 counts, and how late answers and tokens left against their schedule (read = reset)

Each streamed token is the time it was sent: CLOCK_MONOTONIC in us, 16 digits, so a client on the same machine
subtracts it from its own time.monotonic_ns() and has the delay added on the way, whatever relayed it.
`max_tokens` or `max_completion_tokens` in a request caps `--tokens`. Prompts count as 11 tokens,
so that tests can expect a literal.

All waiting is one timer wheel of 1 ms slots: a tick writes what is due, no task or timer per request.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROMPT_TOKENS = 11
CREATED = 1_700_000_000  # fixed: the answers of two runs are the same bytes, but for the stamps
MAX_REQUEST_BYTES = 8 * 2**20
MODEL = {"id": "scripted", "object": "model", "created": CREATED, "owned_by": "bench"}
MODELS = json.dumps({"object": "list", "data": [MODEL]}).encode()
DONE = b"data: [DONE]\n\n"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Script:
    """When the model speaks: `delay_ms` to the answer or first token, then `tokens` tokens `interval_ms` apart."""

    delay_ms: int
    tokens: int
    interval_ms: int


class Wheel:
    """Runs callbacks at whole milliseconds of CLOCK_MONOTONIC; counts how late, in 0.1 ms buckets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: defaultdict[int, list[Callable[[int], None]]] = defaultdict(list)
        self._next_ms = 0
        self._ticking = False
        self.late: Counter[int] = Counter()

    def after(self, delay_ms: int, callback: Callable[[int], None]) -> None:
        """Call `callback(due_ms)` about `delay_ms` from now: rounding down offsets the timer's lateness."""
        now_ms = time.monotonic_ns() // 1_000_000
        if not self._ticking:
            self._ticking, self._next_ms = True, now_ms
            self._loop.call_later(0.001, self._tick)
        self._slots[max(now_ms + delay_ms, self._next_ms + 1)].append(callback)

    def again(self, due_ms: int, callback: Callable[[int], None]) -> None:
        """Call `callback(due_ms)` at `due_ms`; only from within a callback, for a time later than its own."""
        self._slots[due_ms].append(callback)

    def _tick(self) -> None:
        try:
            while self._next_ms <= time.monotonic_ns() // 1_000_000:
                due_ms, self._next_ms = self._next_ms, self._next_ms + 1
                self._run(due_ms)
        finally:  # a callback that raised must not stop the clock for the others
            self._ticking = bool(self._slots)
            if self._ticking:
                self._loop.call_later(0.001, self._tick)

    def _run(self, due_ms: int) -> None:
        for callback in self._slots.pop(due_ms, ()):
            self.late[(time.monotonic_ns() - due_ms * 1_000_000) // 100_000] += 1
            callback(due_ms)


class Counts:
    """What the server did so far; `held` is request's last byte to answer written, in 0.01 ms buckets."""

    def __init__(self) -> None:
        self.requests = self.connections = self.streams_active = self.streams_cut = 0
        self.held: Counter[int] = Counter()


def quantile(buckets: Counter[int], share: float, width_ms: float) -> float | None:
    """The `share` quantile (0..1) of a bucketed sample, in ms; None when it is empty."""
    left = share * buckets.total()
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return round(bucket * width_ms, 2)
    return None


def stats(counts: Counts, wheel: Wheel) -> bytes:
    """The /stats document; starts both samples anew."""
    document: dict[str, Any] = {name: value for name, value in vars(counts).items() if name != "held"}
    for name, buckets, width_ms in (("held", counts.held, 0.01), ("late", wheel.late, 0.1)):
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            document[f"{name}_{label}_ms"] = quantile(buckets, share, width_ms)
        buckets.clear()
    return json.dumps(document).encode()


def response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def error(status: str, message: str) -> bytes:
    return response(status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode())


def frame(event: bytes) -> bytes:
    """One chunk of HTTP/1.1 chunked coding."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


def event(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps(envelope(model, "chat.completion.chunk", [choice])).encode()


def envelope(model: str, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": model, "choices": choices}


@functools.lru_cache(maxsize=64)
def completion(model: str, tokens: int) -> bytes:
    """The whole plain answer: `tokens` words of content."""
    message = {"role": "assistant", "content": " ".join(["word"] * tokens)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    document = {**envelope(model, "chat.completion", [choice]), "usage": usage(tokens)}
    return response("200 OK", json.dumps(document).encode())


@functools.lru_cache(maxsize=64)
def parts(model: str, tokens: int, with_usage: bool) -> tuple[bytes, bytes, bytes]:
    """A stream's opening, its token chunk with a %d for the stamp, and its end."""
    opening = SSE_HEAD + frame(event(model, {"role": "assistant", "content": ""}))
    stamped = frame(event(model, {"content": "0" * 16})).replace(b"%", b"%%").replace(b"0" * 16, b"%016d")
    end = frame(event(model, {}, "stop"))
    if with_usage:
        last = {**envelope(model, "chat.completion.chunk", []), "usage": usage(tokens)}
        end += frame(b"data: %b\n\n" % json.dumps(last).encode())
    return opening, stamped, end + frame(DONE) + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection: one request at a time, further bytes wait until it is answered."""

    def __init__(self, script: Script, wheel: Wheel, counts: Counts) -> None:
        self._script, self._wheel, self._counts = script, wheel, counts
        self._received = bytearray()
        self._busy = False
        self._streaming = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.connections -= 1
        if self._streaming:
            self._end_stream()
            self._counts.streams_cut += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while not self._busy and self._next_request():
            pass

    def _next_request(self) -> bool:
        """Take one whole request out of the buffer and start its answer; False when there is none yet."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        _, _, after = head.partition(b"\r\ncontent-length:")
        length = int(after.partition(b"\r\n")[0] or 0)
        if b"\r\ntransfer-encoding:" in head or length > MAX_REQUEST_BYTES:
            return self._refuse("411 Length Required", "send a content-length under 8 MiB")
        if len(self._received) < end + 4 + length:
            return False
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        self._counts.requests += 1
        self._route(head.partition(b" http/")[0], body)
        return True

    def _refuse(self, status: str, message: str) -> bool:
        self._transport.write(error(status, message))
        self._transport.close()
        return False

    def _route(self, target: bytes, body: bytes) -> None:
        if target == b"post /v1/chat/completions":
            self._chat(body)
        elif target == b"get /v1/models":
            self._transport.write(response("200 OK", MODELS))
        elif target == b"get /stats":
            self._transport.write(response("200 OK", stats(self._counts, self._wheel)))
        else:
            self._transport.write(error("404 Not Found", f"no {target.decode(errors='replace')} here"))

    def _chat(self, body: bytes) -> None:
        try:
            request = json.loads(body)
            model = str(request.get("model", "scripted"))
            cap = request.get("max_completion_tokens") or request.get("max_tokens")
            tokens = min(self._script.tokens, cap or self._script.tokens)
            streamed = bool(request.get("stream"))
            with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        except (ValueError, AttributeError, TypeError) as fault:
            self._transport.write(error("400 Bad Request", str(fault)))
            return
        self._busy = True
        if streamed:
            self._start_stream(*parts(model, tokens, with_usage), tokens)
        else:
            self._wait(functools.partial(self._answer, completion(model, tokens), time.monotonic_ns()))

    def _wait(self, callback: Callable[[int], None]) -> None:
        if self._script.delay_ms:
            self._wheel.after(self._script.delay_ms, callback)
        else:
            callback(time.monotonic_ns() // 1_000_000)

    def _answer(self, answer: bytes, received_ns: int, due_ms: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(answer)
        self._counts.held[(time.monotonic_ns() - received_ns) // 10_000] += 1
        self._finish()

    def _finish(self) -> None:
        self._busy = False
        if self._received:
            self.data_received(b"")

    def _start_stream(self, opening: bytes, stamped: bytes, end: bytes, tokens: int) -> None:
        self._streaming = True
        self._counts.streams_active += 1
        self._opening, self._stamped, self._end, self._left = opening, stamped, end, tokens
        self._wait(self._speak)

    def _speak(self, due_ms: int) -> None:
        """Send one token (all that are left, when they are 0 ms apart) and wait for the next one's time."""
        if not self._streaming:
            return
        interval_ms = self._script.interval_ms
        count = 1 if interval_ms else self._left
        token = self._stamped % (time.monotonic_ns() // 1_000)
        self._transport.write(self._opening + token * count)
        self._opening = b""
        self._left -= count
        if self._left > 0:
            self._wheel.again(due_ms + interval_ms, self._speak)
        else:
            self._transport.write(self._end)
            self._end_stream()
            self._finish()

    def _end_stream(self) -> None:
        self._streaming = False
        self._counts.streams_active -= 1


async def serve(host: str, port: int, script: Script) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    wheel, counts = Wheel(loop), Counts()
    server = await loop.create_server(lambda: Connection(script, wheel, counts), host, port, backlog=4096)
    gc.freeze()
    print(f"ready http://{host}:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    async with server:
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--delay-ms", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--interval-ms", type=int, default=20)
    options = parser.parse_args()
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    script = Script(max(0, options.delay_ms), max(1, options.tokens), max(0, options.interval_ms))
    asyncio.run(serve(options.host, options.port, script))


if __name__ == "__main__":
    main()
