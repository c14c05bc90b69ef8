"""A reconnect storm: every socket is gone at once and comes back at once, while others go on asking over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.load import body_bytes, summary
from bench.scenario import Figures
from bench.servers import Server
from bench.socket_crowd import Crowd

ASKERS, EVERY_S = 16, 0.4  # 40 requests a second
ANSWER_S = 30.0


async def storm(crowd: Crowd, server: Server, question: str) -> Figures:
    """Seconds until 99 % and all are back, and the quantiles of `question` meanwhile."""
    count = crowd.open
    async with asked(server, question) as latencies_us:
        await crowd.drop()
        back = await crowd.connect(count)
    http = summary(sorted(latencies_us))
    return {
        "back_99_s": back.seconds_to(0.99),
        "back_all_s": back.seconds_to(1.0),
        "retries": back.retries,
        **{f"http_{name}": value for name, value in http.items()},
    }


@asynccontextmanager
async def asked(server: Server, question: str) -> AsyncIterator[list[int]]:
    """Ask on keep-alive connections at fixed moments until the block ends; the us from each moment to the answer.

    A slow answer does not put off the next question's moment, so a server that stops for a second is seen to.
    """
    latencies_us: list[int] = []
    async with asyncio.TaskGroup() as group:
        askers = [
            group.create_task(ask(server, question, EVERY_S * number / ASKERS, latencies_us))
            for number in range(ASKERS)
        ]
        yield latencies_us
        for asker in askers:
            asker.cancel()


async def ask(server: Server, question: str, first_s: float, latencies_us: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    due = time.monotonic() + first_s
    try:
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(question.encode())
            async with asyncio.timeout(ANSWER_S):
                await answer(reader)
            latencies_us.append(round(1e6 * (time.monotonic() - due)))
            due += EVERY_S
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    await reader.readexactly(body_bytes(head))
