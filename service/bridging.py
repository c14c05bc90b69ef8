"""Running the alert bridge in this process: open it, serve it until a signal, drain it."""

import asyncio
from collections.abc import Callable

import structlog

from service.server.listener import HypercornConfig, Listener, bind_socket
from service.server.server import ServerConfig, count_nothing, stop_on_signals
from service.settings import Settings
from service.wiring.bridge import BridgeParts, open_bridge

log = structlog.get_logger("bridge")

# A group under way has the bridge's own deadline, 8 s.
DRAIN_S = 10.0


async def bridge(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = stop_on_signals()
    async with open_bridge(settings) as parts:
        await serve_bridge(parts, settings.bridge_host, settings.bridge_port, stop)


async def serve_bridge(
    parts: BridgeParts, host: str, port: int, stop: asyncio.Event, started: Callable[[int], None] = lambda port: None
) -> None:
    """Serve until `stop` is set; what is under way then has DRAIN_S. `started` is told the port."""
    config = ServerConfig()
    protocol = HypercornConfig(config.header_bytes, config.websocket_message_bytes)
    sock = bind_socket(host, port, False, "BRIDGE_PORT")
    listener = Listener(parts.app, sock, config, protocol, count_nothing)
    try:
        await listener.open(config.backlog, config.private_max_connections)
        log.info("bridge.started", port=listener.port)
        started(listener.port)
        await stop.wait()
        parts.draining.set()
        log.info("bridge.draining", connections=len(listener))
        await listener.stop_accepting()
        await listener.finish(DRAIN_S)
    finally:
        await listener.close()
    log.info("bridge.stopped")
