"""Running one worker in this process: open it, take tasks until a signal, drain."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from service.background import end
from service.server.listener import HypercornConfig, Listener, bind_socket
from service.server.server import ServerConfig, count_nothing, stop_on_signals
from service.serving import require_tables, tune_interpreter
from service.settings import Settings
from service.wiring.worker import LEAVE_S, open_worker

log = structlog.get_logger("worker")


async def work(
    settings: Settings, concurrency: int, queues: Sequence[str], started: Callable[[], None] = lambda: None
) -> None:
    """Until SIGTERM or SIGINT; what runs then has WORKER_DRAIN seconds, and goes back to the queue."""
    stop = stop_on_signals()
    await require_tables(settings)
    config = ServerConfig()
    private = bind_socket(settings.private_host, settings.private_port, False, "PRIVATE_PORT")
    async with open_worker(settings, concurrency, queues) as parts:
        tune_interpreter()
        protocol = HypercornConfig(config.header_bytes, config.websocket_message_bytes)
        listener = Listener(parts.private, private, config, protocol, count_nothing)
        await listener.open(config.backlog, config.private_max_connections)
        taking = asyncio.create_task(parts.worker.serve(), name="worker")
        log.info("worker.started", private_port=listener.port, concurrency=concurrency)
        started()
        try:
            await either(taking, stop)
            log.info("worker.draining", running=parts.worker.running)
            parts.worker.stop()
            async with asyncio.timeout(settings.worker_drain + LEAVE_S):
                await taking
        except TimeoutError:
            log.error("worker.drain_cut", running=parts.worker.running)
        finally:
            await end(taking)
            await listener.close()
    log.info("worker.stopped")


async def either(taking: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    """Until a signal; or until taking has failed, in a way nobody foresaw, which ends the process."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((taking, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
