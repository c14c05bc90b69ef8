"""A Sentinel trio and a cluster of three, on real Valkey servers that share one password and one state folder."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from service.embedded.folder import StateFolder
from service.embedded.ports import HOST
from service.embedded.valkey import VOLATILE, Valkey, start_valkey
from tests.ports import reserved_port
from tests.servers import run

SERVICE = "atp"
LAST_SLOT = 16383
DOWN_AFTER_MS = 300
FAILOVER_TIMEOUT_MS = 3000
FORMING_TIMEOUT_S = 15


@dataclass(frozen=True)
class SentinelTrio:
    """Kill `primary` and the sentinels promote one of `replicas` within about two seconds."""

    primary: Valkey
    replicas: list[Valkey]
    sentinels: list[Valkey]

    @property
    def url(self) -> str:
        return f"redis+sentinel://:{self.primary.password}@{hosts(self.sentinels)}/{SERVICE}/0"

    async def primary_port(self) -> int:
        """Of the server the first sentinel names as primary now."""
        async with client(self.sentinels[0], password=False) as sentinel:
            reply = await sentinel.execute_command("SENTINEL", "GET-PRIMARY-ADDR-BY-NAME", SERVICE)
        return int(reply[1])

    async def kill(self) -> None:
        await kill_all([*self.sentinels, *self.replicas, self.primary])


@dataclass(frozen=True)
class Cluster:
    """Three primaries, each a third of the slots, no replicas: a dead node takes its keys with it."""

    nodes: list[Valkey]

    @property
    def url(self) -> str:
        return f"redis+cluster://:{self.nodes[0].password}@{hosts(self.nodes)}"

    async def kill(self) -> None:
        await kill_all(self.nodes)


@contextmanager
def sentinel_trio(state_dir: Path) -> Iterator[SentinelTrio]:
    """One primary, two replicas in step with it, three sentinels that know each other and them."""
    with reserved_ports(6) as ports:
        trio = run(start_sentinel_trio(state_dir, ports))
        yield trio
        run(trio.kill())


@contextmanager
def cluster(state_dir: Path) -> Iterator[Cluster]:
    """Three primaries that know each other."""
    with reserved_ports(6) as ports:
        started = run(start_cluster(state_dir, ports[:3], ports[3:]))
        yield started
        run(started.kill())


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield [stack.enter_context(reserved_port()) for _ in range(count)]


async def start_sentinel_trio(state_dir: Path, ports: list[int]) -> SentinelTrio:
    auth = {"primaryauth": StateFolder.open(state_dir).secret("valkey"), "repl-diskless-sync-delay": "0"}
    primary = await start_valkey(state_dir, ports[0], settings={**VOLATILE, **auth}, name="primary")
    following = {**VOLATILE, **auth, "replicaof": f"{HOST} {primary.port}"}
    replicas = [await start_valkey(state_dir, ports[n], settings=following, name=f"replica-{n}") for n in (1, 2)]
    await until_info(primary, "replication", {"connected_slaves": 2})
    watching = sentinel_settings(primary)
    sentinels = [
        await start_valkey(state_dir, ports[2 + n], settings=watching, arguments=("--sentinel",), name=f"sentinel-{n}")
        for n in (1, 2, 3)
    ]
    for sentinel in sentinels:
        await until_info(sentinel, "sentinel", {"slaves": 2, "sentinels": 3}, of="master0")
    return SentinelTrio(primary, replicas, sentinels)


def sentinel_settings(primary: Valkey) -> dict[str, str]:
    return {
        "requirepass": '""',  # the sentinels themselves are open, as in most installations
        "sentinel monitor": f"{SERVICE} {HOST} {primary.port} 2",
        "sentinel auth-pass": f"{SERVICE} {primary.password}",
        "sentinel down-after-milliseconds": f"{SERVICE} {DOWN_AFTER_MS}",
        "sentinel failover-timeout": f"{SERVICE} {FAILOVER_TIMEOUT_MS}",
    }


async def start_cluster(state_dir: Path, ports: list[int], bus_ports: list[int]) -> Cluster:
    nodes = [
        await start_valkey(state_dir, port, settings=cluster_settings(bus_port), name=f"node-{port}")
        for port, bus_port in zip(ports, bus_ports, strict=True)
    ]
    bounds = [0, 5461, 10923, LAST_SLOT + 1]
    for epoch, node in enumerate(nodes, start=1):
        async with client(node) as one:
            await one.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            await one.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[epoch - 1], bounds[epoch] - 1)
    async with client(nodes[0]) as first:
        for node, bus_port in zip(nodes[1:], bus_ports[1:], strict=True):
            await first.execute_command("CLUSTER", "MEET", HOST, node.port, bus_port)
    for node in nodes:
        await until_cluster(node)
    return Cluster(nodes)


def cluster_settings(bus_port: int) -> dict[str, str]:
    # By default the bus has the port + 10,000, which for our high free ports lies beyond 65,535.
    return {**VOLATILE, "cluster-enabled": "yes", "cluster-port": str(bus_port), "cluster-node-timeout": "2000"}


async def until_cluster(node: Valkey) -> None:
    wanted = {"cluster_state": "ok", "cluster_known_nodes": "3"}
    async with client(node) as one:

        async def formed() -> bool:
            return wanted.items() <= (await one.cluster("info")).items()

        await until(formed)


async def until_info(server: Valkey, section: str, wanted: Mapping[str, int], of: str = "") -> None:
    """Wait until INFO's `section` (or the group `of` in it) shows the wanted numbers."""
    async with client(server, password=not of) as one:

        async def shown() -> bool:
            info = await one.info(section)
            return wanted.items() <= (info.get(of, {}) if of else info).items()

        await until(shown)


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, at most FORMING_TIMEOUT_S."""
    async with asyncio.timeout(FORMING_TIMEOUT_S):
        while True:
            if await reached():
                return
            await asyncio.sleep(0.02)


def client(server: Valkey, password: bool = True) -> Redis:
    return Redis(host=HOST, port=server.port, password=server.password if password else None, decode_responses=True)


def hosts(servers: list[Valkey]) -> str:
    return ",".join(f"{HOST}:{server.port}" for server in servers)


async def kill_all(servers: list[Valkey]) -> None:
    await asyncio.gather(*(server.kill() for server in servers))
