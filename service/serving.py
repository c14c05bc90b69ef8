"""Running one node in this process: open it, serve it until a signal, drain it."""

import asyncio
import gc
import sys
from collections.abc import Callable

from service.db.migrate import outstanding
from service.errors import DatabaseUnavailable, SettingsError
from service.server.server import Server, ServerConfig, ServerHooks, stop_on_signals
from service.settings import Settings
from service.wiring import open_node

SWITCH_INTERVAL_S = 0.0005  # Python's default is 0.005
COLLECT_AFTER = (10_000, 20, 20)  # Python's default is 700, 10, 10


async def serve(
    settings: Settings, index: int = 0, reuse_port: bool = False, started: Callable[[], None] = lambda: None
) -> None:
    """Run one node until SIGTERM or SIGINT. `index` tells the processes of one machine apart; `started` is called once
    it answers."""
    stop = stop_on_signals()
    await require_tables(settings)
    async with open_node(settings) as node:
        tune_interpreter()
        hooks = ServerHooks(
            count=lambda reason: node.metrics.connections_cut.labels(reason).inc(),
            not_ready=node.draining.set,
            on_drain=node.let_go,
        )
        config = ServerConfig(
            host=settings.host,
            port=settings.port,
            private_host=settings.private_host,
            private_port=settings.private_port + index,
            reuse_port=reuse_port,
        )
        server = Server(node.public, node.private, config, hooks)
        announcing = asyncio.create_task(announce(server, started))
        try:
            await server.run(stop)
        finally:
            announcing.cancel()


async def require_tables(settings: Settings) -> None:
    """Refuse a database that was not migrated: every request would fail. One that is away may come later.

    Raises:
        SettingsError: says how many migrations are missing, and the command.
    """
    try:
        missing = await outstanding(settings.database_url.get_secret_value())
    except DatabaseUnavailable:
        return
    if missing:
        raise SettingsError(f"the database lacks {missing} migration(s): run `atp migrate`")


def tune_interpreter() -> None:
    """Three habits of CPython that every request would feel.

    The threads that export traces and write logs keep the interpreter's lock for a whole interval when the loop wants
    it back. And a full garbage collection looks at every object there is, most of which live as long as the process:
    with those that start-up made set aside, it no longer stops the loop for 50 to 75 ms. And it looks often: with ten
    thousand sockets that took a third of the time of a new one. Nothing here waits for it (a closed connection frees
    itself, as `tests/server/test_server_memory.py` shows), so it may look seldom.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*COLLECT_AFTER)
    gc.collect()
    gc.freeze()


async def announce(server: Server, started: Callable[[], None]) -> None:
    await server.started.wait()
    started()
