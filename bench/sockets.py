"""WebSockets by the thousand: what one costs, how fast they connect, how soon a broadcast is at all of them.

Three servers hold the same raw clients: ATP, bare Starlette on plain hypercorn, and python-socketio. Sockets are added
in steps and each step is measured. On ATP besides: Redis commands while all are idle, readers that stall, and a
reconnect storm (on bare too, as what the machine gives).
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from bench.load import Meter, request
from bench.machine import established, quiet, rss_mb
from bench.redis_info import commands_per_s
from bench.scenario import OTHERS_SHARE_MAX, Figures, Line, Reach, Round, Scenario
from bench.servers import MODELS, Server, Stage
from bench.socket_client import Plan
from bench.socket_crowd import Crowd, open_crowd
from bench.storm import storm

SIZES, QUICK_SIZES = (1_000, 5_000, 10_000), (200, 500, 1_000)
FEW = 100
WARM = 20
BROADCASTS, TEXT_BYTES = 10, 200
# What a stalled reader's connection can hold is filled by the first broadcasts of this size.
BIG_BYTES, BIG_BROADCASTS = 7_500, 16
STALLED_SHARE = 0.01
STALLED_S = 10.0  # after the last broadcast none of them is held any more
ECHO_CLIENTS, ECHO_S = 64, 2.0
ATTEMPTS = 2
REDIS_S = 15.0
SETTLE_S = 0.5
SOCKETIO_PATH = "/socket.io/?EIO=4&transport=websocket"
MANY_SOCKETS = {
    "MAX_WEBSOCKET_CONNECTIONS": "12000",
    "WEBSOCKETS_PER_KEY": "20000",
    "WEBSOCKETS_PER_ADDRESS": "20000",
    "WEBSOCKET_TIMEOUT": "3600",  # idle on purpose
}


@dataclass(frozen=True)
class Target:
    """A server under test, without sockets yet, and those that will be opened."""

    server: Server
    crowd: Crowd
    idle_mb: float

    def kb_each(self) -> float:
        """Resident memory of a socket, in 10^3 bytes."""
        return 1000 * (rss_mb(self.server.pid) - self.idle_mb) / self.crowd.open


async def measure(sizes: Sequence[int], round_: Round) -> Figures:
    """The three servers, one at a time."""
    stage = round_.stage
    async with bare(stage) as target:
        figures = named("bare", await ladder(target, sizes))
        figures |= named("bare_storm", await storm(target.crowd, target.server, request("GET", MODELS)))
    async with socketio(stage) as target:
        figures |= named("socketio", await ladder(target, sizes))
    async with atp(stage) as target:
        await target.crowd.connect(FEW)
        await asyncio.sleep(SETTLE_S)
        few = await commands_per_s(stage.redis_url, REDIS_S)
        figures |= named("atp", await ladder(target, sizes))
        figures |= {"redis_few": few, "redis_most": await commands_per_s(stage.redis_url, REDIS_S)}
        question = request("GET", MODELS, x_api_key=stage.key)
        figures |= named("atp_storm", await storm(target.crowd, target.server, question))
        figures |= await stalls(target)
    return figures


def named(prefix: str, figures: Figures) -> Figures:
    return {f"{prefix}_{key}": value for key, value in figures.items()}


async def ladder(target: Target, sizes: Sequence[int]) -> Figures:
    """Each step's figures, named by its size."""
    figures: Figures = {}
    for size in sizes:
        figures |= named(str(size), await step(target, size))
    return figures


async def step(target: Target, size: int) -> Figures:
    crowd = target.crowd
    await quiet()
    opened = await crowd.connect(size - crowd.open)
    await asyncio.sleep(SETTLE_S)
    figures: Figures = {"connect_per_s": opened.per_s, "retries": opened.retries, "rss_kb": target.kb_each()}
    figures |= named("broadcast", await quietest_broadcasts(target))
    figures |= named("echo", await crowd.echo(ECHO_CLIENTS, ECHO_S))
    return figures | {"used_rss_kb": target.kb_each()}


async def quietest_broadcasts(target: Target) -> Figures:
    """On a busy machine once more, and those count that met fewer others on the server's core."""
    attempts: list[Figures] = []
    while len(attempts) < ATTEMPTS and all(one["others_share"] > OTHERS_SHARE_MAX for one in attempts):
        attempts.append(await broadcasts(target, BROADCASTS, TEXT_BYTES))
    return min(attempts, key=lambda one: one["others_share"])


async def broadcasts(target: Target, times: int, text_bytes: int) -> Figures:
    meter = Meter(target.server.pid)
    found = await target.crowd.broadcasts(times, text_bytes)
    used = meter.read(times * target.crowd.open)
    return found | {name: used[name] for name in ("server_cpu_us", "others_share")}


async def stalls(target: Target) -> Figures:
    """The same big broadcasts without and with clients that have stopped reading, and again the other way round."""
    await quiet()
    without, with_them = [await big_broadcasts(target)], [await among_stalled(target), await among_stalled(target)]
    without.append(await big_broadcasts(target))
    return named("unstalled", mean(without)) | named("stalled", mean(with_them))


async def big_broadcasts(target: Target) -> Figures:
    return await broadcasts(target, BIG_BROADCASTS, BIG_BYTES)


async def among_stalled(target: Target) -> Figures:
    """Nobody waits for the stalled ones; `held` is how many the server has not given up in the end."""
    crowd = target.crowd
    await crowd.connect(round(crowd.open * STALLED_SHARE), stalled=True)
    await asyncio.sleep(SETTLE_S)
    found = await big_broadcasts(target)
    await asyncio.sleep(STALLED_S)
    return found | {"held": established(target.server.port) - crowd.open}


def mean(rows: Sequence[Figures]) -> Figures:
    return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}


@asynccontextmanager
async def bare(stage: Stage) -> AsyncIterator[Target]:
    async with stage.bare_sockets() as server:
        plan = Plan(server.port, "/ws")
        async with ready(server, plan, lambda text: request("POST", "/broadcast", as_message(text))) as target:
            yield target


@asynccontextmanager
async def socketio(stage: Stage) -> AsyncIterator[Target]:
    async with stage.socketio() as server:
        plan = Plan(server.port, SOCKETIO_PATH, dialect="socketio")
        async with ready(server, plan, lambda text: request("POST", "/broadcast", as_message(text))) as target:
            yield target


@asynccontextmanager
async def atp(stage: Stage) -> AsyncIterator[Target]:
    async with stage.atp(**MANY_SOCKETS) as server:
        plan = Plan(server.port, "/ws/session", headers={"X-API-Key": stage.key})
        trigger = partial(request, "POST", "/api/admin/broadcast", x_api_key=stage.admin_key)
        async with ready(server, plan, lambda text: trigger(as_message(text))) as target:
            yield target


def as_message(text: str) -> dict[str, str]:
    return {"message": text}


@asynccontextmanager
async def ready(server: Server, plan: Plan, trigger: Callable[[str], str]) -> AsyncIterator[Target]:
    """After a few sockets and a broadcast, so that what every server imports or makes once is not on the first step."""
    async with open_crowd(server, plan, trigger) as crowd:
        await crowd.connect(WARM)
        await crowd.broadcasts(1, TEXT_BYTES)
        await crowd.echo(WARM, 0.1)
        await crowd.drop()
        await asyncio.sleep(SETTLE_S)
        yield Target(server, crowd, rss_mb(server.pid))


BARE, SOCKETIO = "bare Starlette on hypercorn", "python-socketio 5.18.1 on uvicorn"


def lines(sizes: Sequence[int]) -> tuple[Line, ...]:
    most = sizes[-1]
    grown = [line for size in sizes for line in of_size(size, size == most)]
    return (*grown, *at_most(most))


def of_size(size: int, largest: bool) -> list[Line]:
    """What is shown to grow, or not to."""
    light = Reach("<= 40 KB", lambda kb: kb <= 40) if largest else None
    soon = Reach("<= 1.3x", lambda times: times <= 1.3, on_ratio=True) if largest else None
    figure = partial(against, f"{size:,} sockets", size)
    return [
        figure("RSS KB each", "rss_kb", "bare", "{:.1f}", "{:.2f}x", light),
        figure("RSS KB each", "rss_kb", "socketio", "{:.1f}", "{:.2f}x"),
        figure("broadcast p99 ms", "broadcast_p99_ms", "bare", "{:.0f}", "{:.2f}x", soon),
        figure("broadcast p99 ms", "broadcast_p99_ms", "socketio", "{:.0f}", "{:.2f}x"),
    ]


def at_most(size: int) -> list[Line]:
    """What is shown for the largest size only."""
    figure = partial(against, f"{size:,} sockets", size)
    each = [
        figure(what, name, peer, shown, shown_ratio)
        for what, name, shown, shown_ratio in (
            ("broadcast p50 ms", "broadcast_p50_ms", "{:.0f}", "{:.2f}x"),
            ("broadcast p99 ms, the slowest of ten", "broadcast_worst_p99_ms", "{:.0f}", "{:.2f}x"),
            ("broadcast, server CPU us/socket", "broadcast_server_cpu_us", "{:.0f}", "{:.2f}x"),
            ("RSS KB each after broadcasts", "used_rss_kb", "{:.1f}", "{:.2f}x"),
            ("connects/s", "connect_per_s", "{:,.0f}", "{:.0%}"),
            ("echoes/s, c=64", "echo_per_s", "{:,.0f}", "{:.0%}"),
        )
        for peer in ("bare", "socketio")
    ]
    few, some = f"the same with {FEW} sockets", "the same with none stalled"
    unhurt = Reach("<= 1.1x", lambda times: times <= 1.1, on_ratio=True)
    flat = Reach("<= 1.2x", lambda times: times <= 1.2, on_ratio=True)
    stalled = f"{size:,} sockets, 1 % more stalled"
    storm_of = f"{size:,} sockets dropped at once"
    return [
        *each,
        Line(f"{stalled}, broadcast p99 ms", "stalled_p99_ms", "unstalled_p99_ms", some, "{:.0f}", "{:.2f}x", unhurt),
        Line(
            f"{stalled}, server CPU us/socket",
            "stalled_server_cpu_us",
            "unstalled_server_cpu_us",
            some,
            "{:.0f}",
            "{:.2f}x",
        ),
        Line("stalled sockets still held 10 s later", "stalled_held", reach=Reach("0", lambda held: held == 0)),
        Line(f"{size:,} idle sockets, Redis commands/s", "redis_most", "redis_few", few, "{:.2f}", "{:.2f}x", flat),
        Line(f"{storm_of}, s until 99 % are back", "atp_storm_back_99_s", "bare_storm_back_99_s", BARE, "{:.1f}"),
        Line(f"{storm_of}, models p99 ms", "atp_storm_http_p99_ms", "bare_storm_http_p99_ms", BARE, "{:.0f}"),
    ]


def against(
    where: str, size: int, what: str, name: str, peer: str, shown: str, shown_ratio: str, reach: Reach | None = None
) -> Line:
    peer_name = BARE if peer == "bare" else SOCKETIO
    return Line(f"{where}, {what}", f"atp_{size}_{name}", f"{peer}_{size}_{name}", peer_name, shown, shown_ratio, reach)


def scenario(sizes: Sequence[int]) -> Scenario:
    return Scenario("sockets", partial(measure, sizes), lines(sizes))
