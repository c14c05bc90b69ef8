"""A crowd of sockets, held by two processes of `bench/socket_load.py`, as one: connect, broadcast, echo, drop."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.load import summary
from bench.scenario import Figures
from bench.servers import Server
from bench.socket_client import Plan

PROCESSES = 2  # of 5,000 sockets each: `nofile` may be as low as 20,000
IN_FLIGHT = 200
ARRIVAL_S = 20.0
PAUSE_S = 0.2
COMMAND_S = 180.0
REPLY_BYTES = 2**22
STOP_S = 5.0


class Holder:
    """One load process, and the command it is at."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, do: str, **command: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **command}).encode() + b"\n")
        async with asyncio.timeout(COMMAND_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the socket load ended")
        return dict(json.loads(line))

    async def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass(frozen=True)
class Opened:
    """How many us after the command each socket became usable, in order; and the attempts that failed on the way."""

    us: list[int]
    retries: int

    @property
    def per_s(self) -> float:
        return 1e6 * len(self.us) / self.us[-1]

    def seconds_to(self, share: float) -> float:
        return self.us[int(len(self.us) * share) - 1] / 1e6


class Crowd:
    """Sockets on one server. `trigger` makes the HTTP request, as text, that has the server send a text to all."""

    def __init__(self, holders: list[Holder], server: Server, trigger: Callable[[str], str]) -> None:
        self._holders, self._server, self._trigger = holders, server, trigger
        self.open = 0

    async def connect(self, count: int, stalled: bool = False) -> Opened:
        """`count` more. Stalled ones are not waited for by a broadcast."""
        shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
        replies = await asyncio.gather(
            *(
                holder.ask("connect", count=share, in_flight=IN_FLIGHT // PROCESSES, stalled=stalled)
                for holder, share in zip(self._holders, shares, strict=True)
            )
        )
        self._count(replies)
        for reply in replies:
            if reply["last_failure"]:
                print(f"bench: {reply['retries']} retries: {reply['last_failure']}", file=sys.stderr, flush=True)
        opened_us = sorted(us for reply in replies for us in reply["opened_us"])
        return Opened(opened_us, sum(reply["retries"] for reply in replies))

    async def broadcasts(self, times: int, text_bytes: int) -> Figures:
        """The medians over the broadcasts of their quantiles over the sockets, and our own share of a core.

        Raises:
            RuntimeError: one did not reach every socket once.
        """
        began, own_s = time.perf_counter(), await self._cpu_s()
        each = []
        for _ in range(times):
            each.append(summary(await self._broadcast(text_bytes)))
            await asyncio.sleep(PAUSE_S)
        share = (await self._cpu_s() - own_s) / (time.perf_counter() - began)
        middles = {f"p{q}_ms": sorted(one[f"p{q}_ms"] for one in each)[times // 2] for q in (50, 99)}
        return {**middles, "worst_p99_ms": max(one["p99_ms"] for one in each), "cpu_share": share}

    async def _broadcast(self, text_bytes: int) -> list[int]:
        """Lateness at each socket in us, sorted."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            mark = time.monotonic_ns()
            writer.write(self._trigger(f"@{mark}@".ljust(text_bytes, "x")).encode())
            replies, status = await asyncio.gather(
                self._ask_all("arrivals", mark=mark, timeout_s=ARRIVAL_S), reader.readline()
            )
        finally:
            writer.close()
        late_us = sorted(us for reply in replies for us in reply["us"])
        if not status.startswith(b"HTTP/1.1 202") or len(late_us) != self.open:
            raise RuntimeError(f"a broadcast reached {len(late_us)} of {self.open} sockets: {status!r}")
        return late_us

    async def echo(self, clients: int, seconds: float) -> Figures:
        share = clients // PROCESSES
        replies = await self._ask_all("echo", clients=share, seconds=seconds)
        samples = sorted(us for reply in replies for us in reply["us"])
        taken_s = max(reply["seconds"] for reply in replies)
        used = sum(reply["cpu_share"] for reply in replies)
        return {"per_s": len(samples) / taken_s, "cpu_share": used, **summary(samples)}

    async def drop(self) -> None:
        await self._ask_all("drop")

    async def _cpu_s(self) -> float:
        return float(sum(reply["cpu_s"] for reply in await self._ask_all("tell")))

    async def _ask_all(self, do: str, **command: Any) -> list[dict[str, Any]]:
        replies = await asyncio.gather(*(holder.ask(do, **command) for holder in self._holders))
        self._count(replies)
        return replies

    def _count(self, replies: list[dict[str, Any]]) -> None:
        self.open = sum(reply["open"] for reply in replies)
        if lost := sum(reply["lost"] for reply in replies):
            raise RuntimeError(f"the server closed {lost} sockets")


@asynccontextmanager
async def open_crowd(server: Server, plan: Plan, trigger: Callable[[str], str]) -> AsyncIterator[Crowd]:
    """No socket is open yet. The processes inherit this one's cores, and end with the block."""
    async with AsyncExitStack() as stack:
        holders = []
        for number in range(PROCESSES):
            its_own = replace(plan, source=f"127.0.0.{2 + number}")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.socket_load", json.dumps(asdict(its_own))),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=REPLY_BYTES,
            )
            holders.append(Holder(process))
            stack.push_async_callback(holders[-1].stop)
        yield Crowd(holders, server, trigger)
