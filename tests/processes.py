"""Nodes as `atp serve` runs them: each a process of its own that a test may kill, freeze or stop."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from service.db.pool import one_connection
from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers
from service.embedded.processes import Child, Command
from service.keys import issuing
from service.keys.store import SCOPES
from tests.ports import reserved_port
from tests.upstream import SCRIPTS

ROOT = Path(__file__).parents[1]
READY_S = 40.0  # three at once on a busy machine; alone it is two seconds
EXIT_S = 30.0  # what a node may take from SIGTERM to its end
READY = b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
UNLIMITED = "1000000/second"
# Limits are not what these tests are about; the access log of thousands of requests is only work.
SETTINGS: Mapping[str, Any] = {
    "log_format": "json",
    "access_log_sample": 0,
    "db_pool_size": 2,
    "db_max_overflow": 8,
    "websockets_per_key": 1000,
    **{f"rate_limit_{group}": UNLIMITED for group in ("chat", "api", "keys", "admin", "address", "auth_failures")},
    "streams_per_key": 10_000,
}


class ServiceProcess:
    """A long-running `atp` command as a process of its own; its settings by their lower-case names."""

    command = "serve"

    def __init__(self, folder: StateFolder, name: str, private_port: int, **settings: Any) -> None:
        self.name = name
        own = {"node_name": name, "usage_spool_dir": folder.path / "spool", "private_port": private_port}
        self._folder, self.private_port, self._settings = folder, private_port, {**SETTINGS, **own, **settings}
        self._child: Child

    async def start(self) -> None:
        """Return once it answers."""
        environment = [f"{name.upper()}={value}" for name, value in self._settings.items()]
        argv = ["/usr/bin/env", *environment, sys.executable, "-m", "service", self.command]
        self._child = Child(self._folder, self.name, Command(argv, cwd=ROOT))
        try:
            await self._child.ready(lambda: answers(self.private_port, READY, b" 200 "), READY_S)
        except BaseException:
            await self._child.kill()
            raise

    async def kill(self) -> None:
        """As `kill -9`."""
        await self._child.kill()

    def freeze(self) -> None:
        """Its connections stay open, and nothing is answered."""
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.signal(signal.SIGCONT)

    async def terminate(self) -> int:
        """As an orchestrator stops it: SIGTERM, then wait; the exit code."""
        self._child.signal(signal.SIGTERM)
        async with asyncio.timeout(EXIT_S):
            return await self._child.ended()

    def log(self) -> str:
        return self._child.log.read_text()


class NodeProcess(ServiceProcess):
    """`http` is a client of the public port, authenticated by `key`; `private` one of the private port.

    Both belong to the event loop of a test, inside `clients()`; the process itself outlives it.
    """

    def __init__(self, folder: StateFolder, name: str, ports: tuple[int, int], **settings: Any) -> None:
        """`ports` are the public and the private one; `settings` are the node's, by their lower-case names."""
        port, private_port = ports
        super().__init__(folder, name, private_port, port=port, **settings)
        self.key = ""
        self.url = f"http://{HOST}:{port}"
        self.http: httpx2.AsyncClient
        self.private: httpx2.AsyncClient

    @property
    def private_url(self) -> str:
        return f"http://{HOST}:{self.private_port}"

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[None]:
        async with (
            httpx2.AsyncClient(
                verify=False, base_url=self.url, headers={"x-api-key": self.key}, timeout=10
            ) as self.http,
            httpx2.AsyncClient(verify=False, base_url=self.private_url, timeout=10) as self.private,
        ):
            yield

    async def metric(self, name: str) -> float:
        """The value of one exported series, by its name with labels as exported; 0 when it is not there."""
        text = (await self.private.get("/metrics")).text
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        return float(values[0]) if values else 0.0

    def faults(self) -> list[str]:
        """What it logged with a traceback: nothing that these tests do to it may surprise it."""
        return [line for line in self.log().splitlines() if '"exception"' in line]

    async def ready(self) -> bool:
        """Whether a load balancer would send it new work."""
        status = (await self.private.get("/readyz")).status_code
        assert status in (200, 503)
        return status == 200

    async def online(self) -> dict[str, Any]:
        """What this node tells of the fleet's presence."""
        answer = await self.http.get("/api/admin/stats/online-users")
        stats: dict[str, Any] = answer.raise_for_status().json()
        return stats

    async def sockets(self) -> int:
        """How many sockets it counts in the fleet."""
        return int((await self.online())["sockets"])


class Fleet:
    """Three nodes over one database and one Redis, and their users: `admin` and whoever `user()` makes."""

    def __init__(
        self, folder: Path, database_url: str, redis_urls: list[str], model_url: str = "", **settings: Any
    ) -> None:
        """`redis_urls` has one for each node; they should lead to one server. `settings`: further ones of all nodes."""
        self._dsn = database_url
        self.urls = {"database_url": database_url, "redis_url": redis_urls[0]}
        provider = {"base_url": model_url or f"http://{HOST}:9/v1", "models": {name: {} for name in SCRIPTS}}
        shared = {"database_url": database_url, "providers": json.dumps({"scripted": provider}), **settings}
        state, self._ports = StateFolder.open(folder), ExitStack()
        self.nodes = [
            NodeProcess(state, f"node-{number}", (self._port(), self._port()), redis_url=url, **shared)
            for number, url in enumerate(redis_urls, 1)
        ]

    def _port(self) -> int:
        """The fleet's until kill()."""
        return self._ports.enter_context(reserved_port())

    async def start(self) -> None:
        """Make the administrator, then start all nodes at once."""
        async with one_connection(self._dsn) as connection:
            await issuing.create_user(connection, "admin", "admin@example.org", "admin")
        key = await self.new_key("admin", *SCOPES)
        for node in self.nodes:
            node.key = key
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(node.start())

    async def kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.nodes))
        self._ports.close()

    async def user(self, name: str) -> tuple[str, str]:
        """A new user's id and key."""
        async with one_connection(self._dsn) as connection:
            user = await issuing.create_user(connection, name, f"{name}@example.org")
        return user.id, await self.new_key(name)

    async def new_key(self, user: str, *scopes: str) -> str:
        async with one_connection(self._dsn) as connection:
            return (await issuing.create_key(connection, user, "test", scopes or issuing.DEFAULT_SCOPES)).text

    async def rows(self, sql: str) -> list[Any]:
        async with one_connection(self._dsn) as connection:
            return await (await connection.execute(sql.encode())).fetchall()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator["Fleet"]:
        """With clients of every node, once all three count nobody; at the end none may have logged a fault."""
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                await stack.enter_async_context(node.clients())
            await self.until_counted(0, within_s=10)
            yield self
        assert [fault for node in self.nodes for fault in node.faults()] == []

    async def until_counted(self, sockets: int, within_s: float, *asked: NodeProcess) -> float:
        """Wait until every node (or those asked) counts so many sockets, not degraded; the seconds it took."""
        nodes, started = asked or self.nodes, time.monotonic()
        while True:
            found = [await node.online() for node in nodes]
            took = time.monotonic() - started
            if all((stats["sockets"], stats["degraded"]) == (sockets, False) for stats in found):
                return took
            assert took < within_s, (
                f"{[stats['sockets'] for stats in found]} sockets and not {sockets} after {took:.1f} s"
            )
            await asyncio.sleep(0.05)
