"""A whole node as the tests use it: the real wiring and server on free ports, and a client for it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from service.db.pool import one_connection
from service.errors import Conflict
from service.keys import issuing
from service.keys.store import SCOPES
from service.server.server import Server, ServerConfig, ServerHooks
from service.settings import Settings, load
from service.wiring import Node, open_node
from tests.upstream import SCRIPTS, Upstream

RATE_POLICIES = ("chat", "api", "keys", "admin", "address", "auth_failures")  # the tests of limits set their own


class RunningNode:
    """`node.http` is a client of the public port, authenticated as an admin; `node.private` one of the private port."""

    def __init__(self, node: Node, server: Server, settings: Settings) -> None:
        self.parts, self.server, self.settings = node, server, settings
        self.url = f"http://127.0.0.1:{server.port}"
        self.http: httpx2.AsyncClient
        self.private: httpx2.AsyncClient
        self.key = ""

    async def new_key(self, *scopes: str, days: int | None = None, user: str = "tester") -> str:
        async with one_connection(self.dsn) as connection:
            return (await issuing.create_key(connection, user, "test", scopes or SCOPES, days)).text

    async def new_user(self, name: str, role: str = "user") -> str:
        """Its id."""
        async with one_connection(self.dsn) as connection:
            return (await issuing.create_user(connection, name, f"{name}@example.org", role)).id

    @property
    def dsn(self) -> str:
        return self.settings.database_url.get_secret_value()

    async def rows(self, sql: str, *given: Any) -> list[Any]:
        async with one_connection(self.dsn) as connection:
            return await (await connection.execute(sql.encode(), given or None)).fetchall()

    async def metric(self, name: str) -> float:
        """The value of one exported series, by its name with labels as exported; 0 when it is not there."""
        text = (await self.private.get("/metrics")).text
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        return float(values[0]) if values else 0.0


def node_settings(database_url: str, redis_url: str, model_server: Upstream, **changes: Any) -> Settings:
    provider = {"base_url": model_server.base_url, "api_key": "sk-upstream", "models": {name: {} for name in SCRIPTS}}
    values = {
        "database_url": database_url,
        "redis_url": redis_url,
        "providers": {"scripted": provider},
        "db_pool_size": 2,
        "db_max_overflow": 8,
        "log_format": "json",
        **{f"rate_limit_{policy}": "1000000/second" for policy in RATE_POLICIES},
        "streams_per_key": 10_000,
    }
    return load(**values | changes)


@asynccontextmanager
async def spooling(settings: Settings) -> AsyncIterator[Settings]:
    """With a spool of its own unless one is set: a node would adopt what one on another database has left."""
    with tempfile.TemporaryDirectory(prefix="atp-spool-") as folder:
        yield settings.model_copy(update={"usage_spool_dir": settings.usage_spool_dir or Path(folder)})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningNode]:
    """Open a node, serve it, and drain it at the end."""
    stop = asyncio.Event()
    config = ServerConfig(port=0, private_port=0, exit_s=None, drain_s=5)
    async with spooling(settings) as settings, open_node(settings) as parts:
        server = Server(
            parts.public, parts.private, config, ServerHooks(not_ready=parts.draining.set, on_drain=parts.let_go)
        )
        serving = asyncio.create_task(server.run(stop))
        await server.started.wait()
        node = RunningNode(parts, server, settings)
        try:
            async with clients(node):
                yield node
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def clients(node: RunningNode) -> AsyncIterator[None]:
    with suppress(Conflict):  # another node over this database has made it
        async with one_connection(node.dsn) as connection:
            await issuing.create_user(connection, "tester", "tester@example.org", "admin")
    node.key = await node.new_key()
    private = f"http://127.0.0.1:{node.server.private_port}"
    async with (
        httpx2.AsyncClient(verify=False, base_url=node.url, headers={"x-api-key": node.key}, timeout=10) as node.http,
        httpx2.AsyncClient(verify=False, base_url=private, timeout=10) as node.private,
    ):
        yield
