"""`atp dev`: everything on this machine, from nothing to an answered curl line.

What is not configured is embedded: set DATABASE_URL, REDIS_URL or OPENAI_BASE_URL (or PROVIDERS) and that part is
yours instead of ours.
"""

import asyncio
import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from service.background import end
from service.db.migrate import migrate
from service.db.pool import one_connection
from service.embedded.errors import EmbeddedError
from service.embedded.folder import write_private
from service.embedded.parts import EmbeddedParts
from service.errors import AtpError
from service.keys import issuing, store, token, user_store
from service.server.listener import bind_socket
from service.serving import serve
from service.settings import Settings

ADMIN = "admin"
PR_SET_PDEATHSIG = 1
# What each embedded part stands in for, by the settings that replace it.
REPLACED_BY = {"postgres": {"database_url"}, "valkey": {"redis_url"}, "llm": {"openai_base_url", "providers"}}


@dataclass(frozen=True)
class Ready:
    """What the banner tells."""

    settings: Settings
    key: str
    env_file: Path


async def run(settings: Settings) -> int:
    """Start the embedded parts, migrate, mint the first admin key once, serve until Ctrl-C."""
    check_ports(settings)
    end_with_make()
    wanted = frozenset(part for part, names in REPLACED_BY.items() if not names & settings.model_fields_set)
    try:
        async with EmbeddedParts(settings.state_dir, say=say, wanted=wanted) as parts:
            mine = configured(settings, parts)
            for name in await migrate(mine.database_url.get_secret_value()):
                say(f"applied migration {name}")
            watching = asyncio.create_task(parts.watch())
            ready = Ready(mine, await admin_key(mine), write_env(mine))
            try:
                await serve(mine, started=lambda: print(banner(ready), flush=True))
            finally:
                await end(watching)
    except EmbeddedError as error:
        raise AtpError(str(error)) from None
    say("stopped")
    return 0


def end_with_make() -> None:
    """A kill -9 of make, whose child we then are, must not leave us behind holding the port (prctl(2))."""
    if "MAKELEVEL" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def check_ports(settings: Settings) -> None:
    """Say that a port is taken now, not after everything else has started; raises PortTaken."""
    bind_socket(settings.host, settings.port, False, "PORT").close()
    bind_socket(settings.private_host, settings.private_port, False, "PRIVATE_PORT").close()


def configured(settings: Settings, parts: EmbeddedParts) -> Settings:
    """The settings with the embedded parts' addresses in place."""
    found: dict[str, object] = {}
    if parts.postgres:
        # One developer needs few connections, and each costs PostgreSQL a process.
        few = {"db_pool_size": 4, "db_max_overflow": 16}
        found |= {name: number for name, number in few.items() if name not in settings.model_fields_set}
        found |= {"database_url": SecretStr(parts.postgres.dsn)}
    if parts.valkey:
        found |= {"redis_url": SecretStr(parts.valkey.url)}
    if parts.llm:
        found |= {"openai_base_url": parts.llm.base_url, "openai_api_key": SecretStr(parts.llm.api_key)}
        found |= {"openai_models": [parts.llm.model]}
    # No worker stands beside it; and who presses Ctrl-C does not want to wait for tasks.
    alone = {"node_tasks": 2, "worker_drain": 1.0}
    found |= {name: number for name, number in alone.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=found)


async def admin_key(settings: Settings) -> str:
    """The admin key of this state folder: minted at the first start, the same one ever after while it is valid."""
    file = settings.state_dir / "secret" / "admin-key"
    async with one_connection(settings.database_url.get_secret_value()) as connection:
        if file.exists():
            text = file.read_text().strip()
            row = await store.select_key(connection, token.digest(text))
            if row and row.state == "active":
                return text
        if await user_store.select_user_id(connection, ADMIN) is None:
            await issuing.create_user(connection, ADMIN, "admin@localhost", "admin")
        minted = await issuing.create_key(connection, ADMIN, "first key, made by atp dev", store.SCOPES)
    write_private(file, minted.text + "\n")
    return minted.text


def write_env(settings: Settings) -> Path:
    """Leave the addresses for other `atp` commands: `set -a; . .atp/env`."""
    file = settings.state_dir / "env"
    values = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "OPENAI_BASE_URL": settings.openai_base_url,
        "OPENAI_API_KEY": settings.openai_api_key.get_secret_value(),
        "OPENAI_MODELS": ",".join(settings.openai_models),
    }
    write_private(file, "".join(f"{name}='{value}'\n" for name, value in values.items()))
    return file


def banner(ready: Ready) -> str:
    settings = ready.settings
    url = address(settings.host, settings.port)
    private = address(settings.private_host, settings.private_port)
    return f"""
ATP is running; Ctrl-C stops everything. Data and keys stay in {settings.state_dir}/.

  API        {url}/api/v1      models {url}/api/v1/models
  metrics    {private}/metrics    ready {private}/readyz
  API key    {ready.key}   (admin)

Ask it something:

  curl -s {url}/api/v1/chat -H 'X-API-Key: {ready.key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"agent": "reasoning", "task": "What is the capital of France?"}}'

Add "stream": true to the JSON to see the answer come in pieces. Or let it be answered later, as a task:

  curl -s {url}/api/v1/tasks -H 'X-API-Key: {ready.key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"agent": "reasoning", "task": "What is the capital of France?"}}'

{url}/api/v1/tasks/<its id>, with the same key, says how it is, and has the answer when it is done.

Other commands, in another terminal:

  set -a; . {ready.env_file}; set +a; .venv/bin/atp doctor
"""


def address(host: str, port: int) -> str:
    """The URL to reach a listening address by: all interfaces are reached on this one, IPv6 stands in brackets."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def say(text: str) -> None:
    print(f"atp: {text}", flush=True)
