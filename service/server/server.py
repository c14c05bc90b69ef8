"""The server: one ASGI application on a public port and one on a private port, in one event loop, on hypercorn.

Hypercorn's own `serve` is not used (`docs/decisions/0003-event-loop.md` says why); its protocol classes are.
There is no ASGI lifespan: `service/wiring/` opens and closes the services around `Server.run`.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from service.server.calls import AsgiApp
from service.server.limits import Limits
from service.server.listener import HypercornConfig, Listener, PortTaken, bind_socket, most_connections

log = structlog.get_logger("server")


@dataclass(frozen=True, kw_only=True)
class ServerConfig(Limits):
    """Where to listen, and what clients may do; seconds and bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    private_host: str = "127.0.0.1"
    private_port: int = 9000
    reuse_port: bool = False  # several processes share the public port (never the private one)
    backlog: int = 4096
    max_connections: int = 16_384
    private_max_connections: int = 64
    header_bytes: int = 16_384
    websocket_message_bytes: int = 65_536
    drain_s: float = 25.0
    exit_s: float | None = 30.0  # then the process ends, however stuck; None: no watchdog


def nothing() -> None:
    """Do nothing."""


async def nothing_async() -> None:
    """Do nothing."""


def count_nothing(event: str) -> None:
    """Count nothing."""


@dataclass(frozen=True)
class ServerHooks:
    """What the server calls. `count` gets one of: connection_refused, request_refused, deadline, writer_stalled,
    message_oversize, frame_flood, app_failed, connection_failed, drain_cut."""

    count: Callable[[str], None] = count_nothing
    not_ready: Callable[[], None] = nothing
    on_drain: Callable[[], Awaitable[None]] = nothing_async
    overdue: Callable[[], None] = lambda: os._exit(1)


class Server:
    """Serves until told to stop, then drains. `bind` may be called first, to learn early that a port is taken."""

    def __init__(
        self, app: AsgiApp, private_app: AsgiApp, config: ServerConfig, hooks: ServerHooks | None = None
    ) -> None:
        self._apps = app, private_app
        self._config = config
        self._hooks = hooks or ServerHooks()
        self._listeners: tuple[Listener, Listener] | None = None
        self.started = asyncio.Event()

    @property
    def port(self) -> int:
        return self.bind()[0].port

    @property
    def private_port(self) -> int:
        return self.bind()[1].port

    @property
    def connections(self) -> int:
        """How many public connections are open."""
        return len(self.bind()[0])

    def bind(self) -> tuple[Listener, Listener]:
        """Reserve both ports; raises PortTaken."""
        if self._listeners is None:
            config, hooks = self._config, self._hooks
            public = bind_socket(config.host, config.port, config.reuse_port, "PORT")
            try:
                private = bind_socket(config.private_host, config.private_port, False, "PRIVATE_PORT")
            except PortTaken:
                public.close()
                raise
            protocol = HypercornConfig(config.header_bytes, config.websocket_message_bytes)
            self._listeners = (
                Listener(self._apps[0], public, config, protocol, hooks.count),
                Listener(self._apps[1], private, config, protocol, hooks.count),
            )
        return self._listeners

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; return when drained (at the latest `drain_s` and a little later)."""
        listeners = self.bind()
        try:
            await listeners[0].open(self._config.backlog, most_connections(self._config.max_connections))
            await listeners[1].open(self._config.backlog, self._config.private_max_connections)
            log.info("server.started", port=self.port, private_port=self.private_port)
            self.started.set()
            await stop.wait()
            await self._drain(*listeners)
        finally:
            for listener in listeners:
                await listener.close()

    async def _drain(self, public: Listener, private: Listener) -> None:
        """1. Not ready. 2. The hook. 3. No new connections. 4. Wait, then cut what is left. 5. The private port."""
        self._watch()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.drain_s
        log.info("server.draining", connections=len(public))
        self._hooks.not_ready()
        try:
            async with asyncio.timeout_at(end):
                await self._hooks.on_drain()
        except Exception:  # a hook that fails or takes too long must not keep the rest from draining
            log.exception("server.drain_hook_failed")
        await public.stop_accepting()
        cut = await public.finish(end - loop.time())
        for _ in range(cut):
            self._hooks.count("drain_cut")
        await private.stop_accepting()
        await private.finish(self._config.retire_s)
        log.info("server.stopped", cut=cut)

    def _watch(self) -> None:
        """A thread that ends the process at `exit_s`, also when the loop is stuck or a service will not close."""
        if self._config.exit_s is not None:
            timer = threading.Timer(self._config.exit_s, self._hooks.overdue)
            timer.daemon = True
            timer.start()


def stop_on_signals() -> asyncio.Event:
    """An event set by SIGTERM or SIGINT; a second SIGINT ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        loop.add_signal_handler(signal.SIGINT, os._exit, 130)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
