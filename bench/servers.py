"""The servers of a bench: each a process of its own, those under test on core 0, all others on core 1."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from bench.machine import OTHER_CORE, SERVER_CORE
from bench.venvs import FOLDER, ROOT, make_venv
from service.db.migrate import migrate
from service.embedded.folder import StateFolder
from service.embedded.ports import answers, free_port
from service.embedded.postgres import Postgres, start_postgres
from service.embedded.processes import Child, Command, run
from service.embedded.valkey import VOLATILE, Valkey, start_valkey

READY_S = 90.0  # LiteLLM imports for long
LITELLM = "litellm[proxy]==1.106.2"
LITELLM_KEY = "sk-bench"
SOCKETIO = (
    "python-socketio==5.18.1",
    "python-engineio==4.15.1",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "websockets==17.4",
    "redis[hiredis]==8.1.0",
)
MODELS = "/api/v1/models"
UNLIMITED = "100000000/second"
LITELLM_CONFIG = """
model_list:
  - model_name: scripted
    litellm_params: {{model: openai/scripted, api_base: "{url}", api_key: none}}
litellm_settings: {{telemetry: false{cache}}}
general_settings: {{master_key: {key}}}
"""
LITELLM_CACHE = (
    ", cache: true, cache_params: {{type: redis, host: {host}, port: {port}, password: '{password}', ttl: 7200}}"
)


@dataclass(frozen=True)
class Server:
    """A running server under test, or the scripted upstream."""

    port: int
    pid: int
    private_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Stage:
    """PostgreSQL, Valkey and an API key for the whole bench, and how to start each server on it."""

    def __init__(self, folder: StateFolder, postgres: Postgres, valkey: Valkey) -> None:
        self._folder, self._postgres, self._valkey = folder, postgres, valkey
        self.key = self.admin_key = ""

    @property
    def redis_url(self) -> str:
        return self._valkey.url

    @property
    def dsn(self) -> str:
        return self._postgres.dsn

    async def prepare(self) -> None:
        """Migrate, and make a user with two keys, as an operator would: by the `atp` command."""
        await self._atp("migrate")
        await self._atp("users", "create", "bench", "bench@localhost", "--role", "admin")
        self.key = (await self._atp("keys", "create", "bench")).splitlines()[0]
        self.admin_key = (await self._atp("keys", "create", "bench", "--scope", "admin")).splitlines()[0]

    async def new_user(self, name: str) -> str:
        """The key of a new user."""
        await self._atp("users", "create", name, f"{name}@localhost")
        return (await self._atp("keys", "create", name)).splitlines()[0]

    async def _atp(self, *arguments: str) -> str:
        command = command_on(OTHER_CORE, self._environment(), sys.executable, "-m", "service", *arguments)
        log = self._folder.path / "log" / "atp-command.log"
        log.unlink(missing_ok=True)
        await run(self._folder, "atp-command", command)
        return log.read_text()

    def _environment(self, **more: str) -> dict[str, str]:
        """No limit may be what is measured."""
        limits = {f"RATE_LIMIT_{name}": UNLIMITED for name in ("CHAT", "API", "KEYS", "ADMIN", "ADDRESS")}
        limits["STREAMS_PER_KEY"] = "1000000"
        return {"DATABASE_URL": self._postgres.dsn, "REDIS_URL": self._valkey.url, **limits, **more}

    @asynccontextmanager
    async def atp(
        self,
        upstream_url: str = "http://127.0.0.1:9/v1",
        otlp_url: str = "",
        program: str = "service",
        **settings: str,
    ) -> AsyncIterator[Server]:
        """One node as `atp serve` runs it: JSON log of every request to a file, every trace exported when asked."""
        ports = free_port(), free_port()
        environment = self._serving_environment(ports, upstream_url, otlp_url, **settings)
        command = command_on(SERVER_CORE, environment, sys.executable, "-m", program, "serve")
        async with self._serving("atp", command, ports[0], "/healthz") as server:
            yield Server(server.port, server.pid, ports[1])

    @asynccontextmanager
    async def worker(self, upstream_url: str, concurrency: int, **settings: str) -> AsyncIterator[Server]:
        """One `atp worker`, with the settings of a node."""
        ports = free_port(), free_port()
        environment = self._serving_environment(ports, upstream_url, "", **settings)
        program = [sys.executable, "-m", "service", "worker", "--concurrency", str(concurrency)]
        command = command_on(SERVER_CORE, environment, *program)
        async with self._serving("worker", command, ports[1], "/readyz") as server:
            yield server

    def _serving_environment(
        self, ports: tuple[int, int], upstream_url: str, otlp_url: str, **settings: str
    ) -> dict[str, str]:
        usual = {
            "PORT": str(ports[0]),
            "PRIVATE_PORT": str(ports[1]),
            "LOG_FORMAT": "json",
            "ACCESS_LOG_SAMPLE": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_url,
            "PROVIDERS": json.dumps({"bench": {"base_url": upstream_url, "models": {"scripted": {}}}}),
        }
        return self._environment(**usual | settings)

    @asynccontextmanager
    async def bare(self, body: str) -> AsyncIterator[Server]:
        port = free_port()
        command = command_on(SERVER_CORE, {}, sys.executable, "-m", "bench.bare", str(port), body)
        async with self._serving("bare", command, port, MODELS) as server:
            yield server

    @asynccontextmanager
    async def bare_sockets(self) -> AsyncIterator[Server]:
        port = free_port()
        command = command_on(SERVER_CORE, {}, sys.executable, "-m", "bench.bare_sockets", str(port))
        async with self._serving("bare-sockets", command, port, MODELS) as server:
            yield server

    @asynccontextmanager
    async def socketio(self) -> AsyncIterator[Server]:
        """One process; its manager publishes every broadcast on the stage's Valkey."""
        port, programs = free_port(), await make_venv("socketio", *SOCKETIO)
        options = ["-m", "bench.socketio_server", str(port), self._valkey.url]
        command = command_on(SERVER_CORE, {}, programs / "python", *options)
        async with self._serving("socketio", command, port, "/") as server:
            yield server

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """The DSN of a database of its own, migrated; dropped at the end."""
        name = f"bench_{name}"
        with psycopg.connect(self._postgres.admin_dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} OWNER atp")
        dsn = self._postgres.dsn.removesuffix("/atp") + f"/{name}"
        try:
            await migrate(dsn)
            yield dsn
        finally:
            with psycopg.connect(self._postgres.admin_dsn, autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def empty_valkey(self, name: str) -> AsyncIterator[str]:
        """The URL of a server of its own that stores nothing on disk, so that no background save is measured."""
        valkey = await start_valkey(self._folder.path, settings=VOLATILE, name=f"valkey-{name}")
        try:
            yield valkey.url
        finally:
            await valkey.stop()

    @asynccontextmanager
    async def litellm(self, upstream_url: str, *, cached: bool = False) -> AsyncIterator[Server]:
        """One worker, one model, a master key, no database, no telemetry; `cached`: answers kept in the Valkey."""
        port, programs = free_port(), await make_venv("litellm", LITELLM)
        config = self._folder.path / "litellm.yaml"
        url = urlsplit(self._valkey.url)
        shown = {"host": url.hostname, "port": url.port, "password": url.password or ""}
        cache = LITELLM_CACHE.format(**shown) if cached else ""
        config.write_text(LITELLM_CONFIG.format(url=upstream_url, key=LITELLM_KEY, cache=cache))
        environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # no look-ups on the network
        options = ["--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        command = command_on(SERVER_CORE, environment, programs / "litellm", *options, "--telemetry", "False")
        async with self._serving("litellm", command, port, "/health/liveliness") as server:
            yield server

    @asynccontextmanager
    async def upstream(self, *options: str) -> AsyncIterator[Server]:
        port = free_port()
        program = [sys.executable, "-m", "bench.scripted_upstream", "--port", str(port), *options]
        async with self._serving("upstream", command_on(OTHER_CORE, {}, *program), port, "/v1/models") as server:
            yield server

    @asynccontextmanager
    async def otlp_sink(self) -> AsyncIterator[Server]:
        port = free_port()
        command = command_on(OTHER_CORE, {}, sys.executable, "-m", "bench.otlp_sink", str(port))
        async with self._serving("otlp-sink", command, port, "/spans") as server:
            yield server

    @asynccontextmanager
    async def _serving(self, name: str, command: Command, port: int, path: str) -> AsyncIterator[Server]:
        """Run until the block ends; the kernel ends it too should this process die."""
        child = Child(self._folder, name, command)
        question = f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode()
        try:
            await child.ready(lambda: answers(port, question, b" 200 "), READY_S)
            yield Server(port, child.pid)
        finally:
            await child.stop()

    async def usage_rows(self) -> int:
        """How many requests are in the ledger."""
        async with await psycopg.AsyncConnection.connect(self._postgres.dsn) as connection:
            row = await (await connection.execute("SELECT count(*) FROM api_usage")).fetchone()
        return int(row[0]) if row else 0


def command_on(core: int, environment: Mapping[str, str], program: str | Path, *arguments: str | Path) -> Command:
    """By env(1) and taskset(1), which become the program."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return Command(["/usr/bin/env", *variables, *taskset(core), program, *arguments], cwd=ROOT)


def taskset(core: int) -> list[str]:
    return [shutil.which("taskset") or "/usr/bin/taskset", "-c", str(core)]


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """This process and all it starts move to core 1, but for the servers under test; nothing stays behind."""
    os.sched_setaffinity(0, {OTHER_CORE})
    FOLDER.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=FOLDER, prefix="stage-")))
        postgres = await start_postgres(path)  # fsync on: a usage row is on disk before its answer is sent
        stack.push_async_callback(postgres.stop)
        valkey = await start_valkey(path)
        stack.push_async_callback(valkey.stop)
        stage = Stage(StateFolder.open(path), postgres, valkey)
        await stage.prepare()
        yield stage
