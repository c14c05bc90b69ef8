"""The socket load: a process of its own that holds thousands of raw WebSocket clients (uvloop).

Run: python -m bench.socket_load '{"port": 8000, "path": "/ws", "source": "127.0.0.2"}'
Each line on stdin is a command, `{"do": "connect", "count": 1000}`; each gets one line on stdout. The commands:

connect  {count, in_flight, stalled?} opens so many more; replies when each became usable, in us after the command.
         One that fails tries again. Stalled ones have small buffers and stop reading once they are open
arrivals {mark, timeout_s} waits until every open client has the broadcast `mark`; replies with the us since the mark
echo     {clients, seconds} a closed loop of pings; replies with the us of each
drop     closes every client at once, without a closing handshake
tell     nothing

Every reply tells `open`, `lost` (closed by the server, ever), and `cpu_s`, this process's own time so far.

A broadcast carries its mark, `@<CLOCK_MONOTONIC in ns>@`, taken when it was sent: the clock is one for all processes.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from typing import Any

import uvloop

from bench.frames import CLOSE, PING, PONG, TEXT, masked, upgrade
from bench.socket_client import DIALECTS, Client, Plan, connected

MARK = re.compile(rb"@(\d+)@")
OPENING_S = 20.0
RETRY_S = 0.05
LINE_BYTES = 65_536


class Clients:
    """All of this process, and what they have heard."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.dialect = DIALECTS[plan.dialect]()
        self.handshake = upgrade(plan.path, plan.headers)
        self._open: set[Client] = set()
        self._stalled: set[Client] = set()
        self._arrivals: defaultdict[int, list[int]] = defaultdict(list)
        self._arrived = asyncio.Event()
        self._echoes: list[int] | None = None
        self._lost = 0

    def hear(self, client: Client, opcode: int, payload: bytes, now_ns: int) -> None:
        if opcode == TEXT:
            mark = MARK.search(payload)
            if mark is None:
                self.dialect.text(client, payload)
            else:
                self._arrivals[int(mark[1])].append((now_ns - int(mark[1])) // 1_000)
                self._arrived.set()
        elif opcode == PING:
            client.send(masked(PONG, payload))
        elif opcode == CLOSE:
            client.refused(f"closed with {payload!r}")

    def lose(self, client: Client) -> None:
        if client in self._open:
            self._open.discard(client)
            self._lost += 1

    def replied(self, client: Client, us: int) -> None:
        if self._echoes is not None:
            self._echoes.append(us)
            client.ping()

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = await getattr(self, f"do_{command.pop('do')}")(**command)
        return {**reply, "open": len(self._open), "lost": self._lost, "cpu_s": time.process_time()}

    async def do_connect(self, count: int, in_flight: int, stalled: bool = False) -> dict[str, Any]:
        began_ns, opened_us, retries = time.monotonic_ns(), [], [""]
        numbers = iter(range(count))

        async def one_after_another() -> None:
            for _ in numbers:  # shared: each takes the next
                retries.extend(await self._connect_at_last(stalled))
                opened_us.append((time.monotonic_ns() - began_ns) // 1_000)

        await asyncio.gather(*(one_after_another() for _ in range(min(count, in_flight))))
        return {"opened_us": opened_us, "retries": len(retries) - 1, "last_failure": retries[-1]}

    async def _connect_at_last(self, stalled: bool) -> list[str]:
        """Why earlier attempts failed."""
        failures: list[str] = []
        while True:
            try:
                async with asyncio.timeout(OPENING_S):
                    await self._connect(stalled)
            except OSError as error:  # TimeoutError is one
                failures.append(repr(error))
                await asyncio.sleep(RETRY_S)
            else:
                return failures

    async def _connect(self, stalled: bool) -> None:
        client = Client(self)
        opening = client.opening
        assert opening is not None
        connection = await connected(self._plan, stalled)
        await asyncio.get_running_loop().create_connection(lambda: client, sock=connection)
        try:
            await opening
        except BaseException:
            client.abort()
            raise
        (self._stalled if stalled else self._open).add(client)
        if stalled:
            client.stop_reading()

    async def do_arrivals(self, mark: int, timeout_s: float) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        while len(self._arrivals[mark]) < len(self._open) and time.monotonic() < until:
            self._arrived.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self._arrived.wait()
            except TimeoutError:
                continue  # one may have been lost meanwhile
        return {"us": self._arrivals.pop(mark)}

    async def do_echo(self, clients: int, seconds: float) -> dict[str, Any]:
        began, own_s = time.perf_counter(), time.process_time()
        self._echoes = []
        for client in itertools.islice(self._open, clients):
            client.ping()
        await asyncio.sleep(seconds)
        echoes, self._echoes = self._echoes, None
        taken_s = time.perf_counter() - began
        return {"us": echoes, "seconds": taken_s, "cpu_share": (time.process_time() - own_s) / taken_s}

    async def do_tell(self) -> dict[str, Any]:
        return {}

    async def do_drop(self) -> dict[str, Any]:
        gone = [*self._open, *self._stalled]
        self._open.clear()
        self._stalled.clear()
        for client in gone:
            client.abort()
        return {"dropped": len(gone)}


async def main(plan: Plan) -> None:
    """One command after the other until stdin ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    clients = Clients(plan)
    while line := await lines.readline():
        print(json.dumps(await clients.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Plan(**json.loads(sys.argv[1]))))
