"""Which client library costs least between ATP and an OpenAI-compatible model, one core each.

Run: python -m bench.model_clients [--rounds 3]     (about 10 minutes; Linux, 2 cores; makes .bench/model_clients)

Per round and library a fresh process pinned to core 0, the scripted upstream (20 ms) pinned to core 1:
1. plain: requests/s and latency added to the upstream's own hold time, at 1, 16 and 64 concurrent requests;
2. streams: the most SSE streams of 50 tokens/s with p99 lateness <= 20 ms (now minus the stamp in the token),
   by doubling and then bisecting to 5 %; a step passes only with the upstream itself on schedule (p99 <= 5 ms);
3. cancel: from task.cancel() to the upstream seeing the connection closed, plain and mid-stream;
4. import time, and RSS after the first answer; CPU time per answer and per token, which busy neighbours hardly move.
Libraries take turns within a round; the table shows medians over rounds.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".bench" / "model_clients"
PINS = """
uvloop==0.23.0 pydantic-ai-slim[openai]==2.68.0 openai[aiohttp]==3.54.0 httpx2==2.16.2 aiohttp==3.14.5
yarl==1.25.1 multidict==7.2.1 pydantic==2.14.3 pydantic-core==2.50.4 anyio==4.16.0 jiter==0.19.0
"""
PROMPT = "What is the capital of France?"
STREAM: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
PLAIN = {**STREAM, "stream": False, "max_tokens": 16}
POOL = {"max_connections": 4096, "max_keepalive_connections": 4096}  # no library waits for its own pool
LATE_LIMIT_MS = 20.0
MAX_EVENT_BYTES = 2**20


class Client(NamedTuple):
    plain: Callable[[], Awaitable[str | None]]
    stream: Callable[[], AsyncIterator[str]]


@asynccontextmanager
async def pydantic_ai(url: str) -> AsyncIterator[Client]:
    import httpx2
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with httpx2.AsyncClient(limits=httpx2.Limits(**POOL)) as http:
        provider = OpenAIProvider(base_url=url, api_key="none", http_client=http)
        agent = Agent(OpenAIChatModel("scripted", provider=provider))

        async def plain() -> str:
            return (await agent.run(PROMPT, model_settings={"max_tokens": 16})).output

        async def stream() -> AsyncIterator[str]:
            async with agent.run_stream(PROMPT) as result:
                async for text in result.stream_text(delta=True, debounce_by=None):
                    yield text

        yield Client(plain, stream)


@asynccontextmanager
async def openai_sdk(url: str, transport: str = "DefaultAsyncHttpxClient") -> AsyncIterator[Client]:
    import httpx2
    import openai

    http = getattr(openai, transport)(limits=httpx2.Limits(**POOL))
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client:

        async def plain() -> str | None:
            return (await client.chat.completions.create(**PLAIN)).choices[0].message.content

        async def stream() -> AsyncIterator[str]:
            async with await client.chat.completions.create(**STREAM) as chunks:
                async for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content

        yield Client(plain, stream)


@asynccontextmanager
async def httpx2_bare(url: str) -> AsyncIterator[Client]:
    import httpx2
    from pydantic_core import from_json

    async with httpx2.AsyncClient(limits=httpx2.Limits(**POOL)) as http:

        async def plain() -> str:
            response = await http.post(f"{url}/chat/completions", json=PLAIN)
            return from_json(response.content)["choices"][0]["message"]["content"]

        async def stream() -> AsyncIterator[str]:
            async with http.stream("POST", f"{url}/chat/completions", json=STREAM) as response:
                async for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        break
                    if text := delta_text(from_json(event.data)):
                        yield text

        yield Client(plain, stream)


@asynccontextmanager
async def aiohttp_bare(url: str) -> AsyncIterator[Client]:
    import aiohttp
    from pydantic_core import from_json

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def plain() -> str:
            async with http.post(f"{url}/chat/completions", json=PLAIN) as response:
                return from_json(await response.read())["choices"][0]["message"]["content"]

        async def stream() -> AsyncIterator[str]:
            no_total = aiohttp.ClientTimeout(total=None, sock_read=30)
            async with http.post(f"{url}/chat/completions", json=STREAM, timeout=no_total) as response:
                async for data in sse_data(response.content.iter_any()):
                    if data == b"[DONE]":
                        break
                    if text := delta_text(from_json(data)):
                        yield text

        yield Client(plain, stream)


async def sse_data(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The `data` of each server-sent event (WHATWG HTML 9.2), whatever way the bytes were cut."""
    rest, data = b"", []
    async for part in parts:
        *lines, rest = (rest + part).replace(b"\r\n", b"\n").split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError("event too large")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []


def delta_text(chunk: dict[str, Any]) -> str | None:
    return chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None


LIBRARIES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "aiohttp_bare": ("aiohttp, own SSE reader", aiohttp_bare),
    "httpx2_bare": ("httpx2, its EventSource", httpx2_bare),
    "openai_aiohttp": ("openai SDK, aiohttp transport", lambda url: openai_sdk(url, "DefaultAioHttpClient")),
    "openai_sdk": ("openai SDK, httpx2 transport", openai_sdk),
    "pydantic_ai": ("pydantic-ai Agent", pydantic_ai),
}


async def measure(name: str, url: str) -> dict[str, float]:
    """Everything for one library, in this process."""
    begun = time.perf_counter()
    async with LIBRARIES[name][1](url) as client:
        import_s = time.perf_counter() - begun
        await client.plain()
        result = {"import_s": import_s, "rss_mb": rss_mb()}
        for concurrency in (1, 16, 64):
            result |= await measure_plain(client, url, concurrency, 1.5)
        result["cancel_plain_ms"] = await measure_cancel(client.plain, url)
        result["cancel_stream_ms"] = await measure_cancel(lambda: consume(client, [], []), url)
        return result | await measure_streams(client, url)


def rss_mb() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def stats(url: str) -> dict[str, float]:
    """The upstream's own counts and lateness since the last call, over a connection of its own."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /stats HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
    writer.close()
    return json.loads(body)


async def measure_plain(client: Client, url: str, concurrency: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []

    async def worker(until: float) -> None:
        while (begun := time.perf_counter()) < until:
            await client.plain()
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(worker(time.perf_counter() + 0.5) for _ in range(concurrency)))
    latencies.clear()
    await stats(url)
    cpu_s = time.process_time()
    await asyncio.gather(*(worker(time.perf_counter() + seconds) for _ in range(concurrency)))
    cpu_us = 1e6 * (time.process_time() - cpu_s) / len(latencies)
    held_ms = (await stats(url))["held_p50_ms"]
    p50_ms, p99_ms = (1000 * quantile(latencies, share) - held_ms for share in (0.5, 0.99))
    c = f"_c{concurrency}"
    return {f"rps{c}": len(latencies) / seconds, f"p50_ms{c}": p50_ms, f"p99_ms{c}": p99_ms, f"cpu_us{c}": cpu_us}


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def measure_cancel(call: Callable[[], Awaitable[Any]], url: str) -> float:
    """ms from cancel to the upstream counting one connection fewer (asked without pause); 1000 if not by then."""
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0.012 if call.__name__ == "plain" else 0.2)  # plain answers come after 20 ms
    before = (await stats(url))["connections"]
    begun = time.perf_counter()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    while time.perf_counter() < begun + 1 and (await stats(url))["connections"] >= before:
        pass
    return 1000 * (time.perf_counter() - begun)


async def consume(client: Client, sink: list[str], late_ms: list[float]) -> None:
    async for text in client.stream():
        late_ms.append((time.monotonic_ns() // 1000 - int(text)) / 1000)
        sink.append(text)


async def measure_streams(client: Client, url: str) -> dict[str, float]:
    late_ms: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    best = dict.fromkeys(("streams", "late_p99_ms", "upstream_late_p99_ms", "cpu_us"), 0.0)
    good, bad, count, failed = 0, 0, 64, False
    while not bad or bad - good > max(1, good // 20):
        await resize(tasks, count, lambda: consume(client, [], late_ms))
        late_ms.clear()
        await stats(url)
        cpu_s = time.process_time()
        await asyncio.sleep(1.5)
        cpu_us = 1e6 * (time.process_time() - cpu_s) / max(1, len(late_ms))
        upstream_ms = (await stats(url))["late_p99_ms"]
        p99_ms = quantile(late_ms, 0.99) if len(late_ms) > count * 65 else float("inf")
        if p99_ms <= LATE_LIMIT_MS and upstream_ms <= 5:
            good, failed = count, False
            best = {"streams": count, "late_p99_ms": p99_ms, "upstream_late_p99_ms": upstream_ms, "cpu_us": cpu_us}
        elif not failed:  # once more: other jobs share the machine
            failed = True
            continue
        else:
            bad, failed = count, False
        count = (good + bad) // 2 if bad else count * 2
    await resize(tasks, 0, lambda: consume(client, [], late_ms))
    return best


async def resize(tasks: list[asyncio.Task[None]], count: int, start: Callable[[], Any]) -> None:
    """Have `count` streams, starts spread over time so that tokens do not come in volleys; then let it settle."""
    gone = [tasks.pop() for _ in range(len(tasks) - count)]
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    while len(tasks) < count:
        tasks.append(asyncio.create_task(start()))
        await asyncio.sleep(0.003)
    await asyncio.sleep(0.5)


def make_venv() -> str:
    """The interpreter of a venv with PINS, by uv where there is one."""
    python = str(VENV / "bin" / "python")
    if (VENV / ".ready").exists():
        return python
    has_uv = shutil.which("uv")
    make = ["uv", "venv", "-q", "--clear", "-p", sys.executable] if has_uv else [sys.executable, "-m", "venv"]
    install = ["uv", "pip", "install", "-p", python] if has_uv else [python, "-m", "pip", "install"]
    subprocess.run([*make, str(VENV)], check=True)
    subprocess.run([*install, "-q", *PINS.split()], check=True)
    (VENV / ".ready").touch()
    return python


def measure_in_process(python: str, name: str) -> dict[str, float]:
    """A fresh upstream on core 1 and a fresh child on core 0."""
    upstream = [python, "-m", "bench.scripted_upstream", "--port", "0", "--tokens", "100000"]
    with subprocess.Popen(["taskset", "-c", "1", *upstream], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[1]
            child = ["taskset", "-c", "0", python, "-m", "bench.model_clients", "--child", name, url]
            return json.loads(subprocess.check_output(child, cwd=ROOT, timeout=300))
        finally:
            server.terminate()


def table(results: dict[str, list[dict[str, float]]]) -> str:
    columns = {
        "req/s c=16": "{rps_c16:.0f}",
        "added p50 / p99 ms c=16": "{p50_ms_c16:.1f} / {p99_ms_c16:.1f}",
        "added p50 ms c=1": "{p50_ms_c1:.1f}",
        "req/s c=64": "{rps_c64:.0f}",
        "streams": "{streams:.0f}",
        "late p99 ms, client / upstream": "{late_p99_ms:.1f} / {upstream_late_p99_ms:.1f}",
        "CPU us per answer c=16 / token": "{cpu_us_c16:.0f} / {cpu_us:.0f}",
        "cancel ms, plain / stream": "{cancel_plain_ms:.0f} / {cancel_stream_ms:.0f}",
        "RSS MB": "{rss_mb:.0f}",
        "import s": "{import_s:.2f}",
    }
    rows = [f"| library | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for name, runs in results.items():
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(f"| {LIBRARIES[name][0]} | {' | '.join(c.format(**medians) for c in columns.values())} |")
    return "\n".join(rows)


def compare(rounds: int) -> None:
    python = make_venv()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
    for number in range(rounds):
        for name, runs in results.items():
            runs.append(measure_in_process(python, name))
            print(f"round {number + 1} {name} {json.dumps(runs[-1])}", file=sys.stderr, flush=True)
    print(table(results))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare client libraries for an OpenAI-compatible model.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("LIBRARY", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.child:
        return compare(options.rounds)
    import uvloop

    return print(json.dumps(uvloop.run(measure(*options.child))))


if __name__ == "__main__":
    main()
