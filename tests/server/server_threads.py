"""A server in a thread with an event loop of its own: ours, or plain hypercorn to show the fault that ours has not."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from starlette.responses import PlainTextResponse

from service.server.server import Server, ServerConfig, ServerHooks

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
private_app = PlainTextResponse("private")


class Running:
    """The ports, what the server counted, and what its loop complained of."""

    def __init__(self) -> None:
        self.port = self.private_port = 0
        self.counted: list[str] = []
        self.complaints: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop
        self.asked_to_stop: asyncio.Event
        self.task: asyncio.Task[Any]
        self.server: Server | None = None
        self.thread: threading.Thread

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.asked_to_stop.set)

    def prepare(self) -> None:
        self.asked_to_stop = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))


async def run_ours(running: Running, app: Any, hooks: dict[str, Any], config: dict[str, Any]) -> None:
    running.prepare()
    settings = ServerConfig(**{"port": 0, "private_port": 0, "exit_s": None, "drain_s": 2.0, **config})
    running.server = Server(app, private_app, settings, ServerHooks(count=running.counted.append, **hooks))
    running.port, running.private_port = running.server.port, running.server.private_port
    serving = asyncio.ensure_future(running.server.run(running.asked_to_stop))
    await running.server.started.wait()
    running.ready.set()
    await serving


async def run_plain(running: Running, app: Any, config: dict[str, Any]) -> None:
    running.prepare()
    sock = socket.create_server(("127.0.0.1", 0))
    running.port = sock.getsockname()[1]
    settings = Config.from_mapping(bind=[f"fd://{sock.detach()}"], errorlog=None, graceful_timeout=0.2, **config)
    running.loop.call_soon(running.ready.set)
    with suppress(asyncio.CancelledError):  # its own end when a connection outlives graceful_timeout
        await hypercorn.asyncio.serve(app, settings, shutdown_trigger=running.asked_to_stop.wait)


@contextmanager
def in_thread(main: Any, running: Running, loop: str) -> Iterator[Running]:
    def work() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())

    running.thread = threading.Thread(target=work, daemon=True)
    running.thread.start()
    assert running.ready.wait(5)
    try:
        yield running
    finally:
        if running.thread.is_alive():
            running.stop()
        running.thread.join(5 if running.server else 1)
        if running.thread.is_alive() and running.server is None:  # from 3.12 on it can wait for ever to stop (#308)
            running.loop.call_soon_threadsafe(running.task.cancel)
            running.thread.join(5)
        assert not running.thread.is_alive()


@contextmanager
def ours(app: Any, loop: str = "asyncio", hooks: dict[str, Any] | None = None, **config: Any) -> Iterator[Running]:
    """Our server; at the end its loop must have had nothing to complain of."""
    running = Running()
    with in_thread(partial(run_ours, running, app, hooks or {}, config), running, loop):
        yield running
    assert running.complaints == []


@contextmanager
def plain(app: Any, loop: str = "asyncio", **config: Any) -> Iterator[Running]:
    """Hypercorn as it comes, with `config` for its own settings."""
    running = Running()
    with in_thread(partial(run_plain, running, app, config), running, loop):
        yield running
