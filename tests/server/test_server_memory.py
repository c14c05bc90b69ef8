"""A connection that has ended is freed then and there: no pause of the garbage collector is needed for it."""

import gc
import time
from collections import Counter
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.server.server_threads import Running, ours
from tests.server.slow_clients import GET, connect, reset, response, until, websocket


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


APP = Starlette(routes=[Route("/", PlainTextResponse("hello")), WebSocketRoute("/ws", echo)])


def http(port: int) -> None:
    with connect(port) as sock:
        sock.sendall(GET)
        response(sock).read()


def closed(port: int) -> None:
    with websocket(port):
        pass


def dropped(port: int) -> None:
    with websocket(port) as sock:
        reset(sock)


def ended(server: Running) -> bool:
    assert server.server
    return server.server.connections == 0


def names(objects: list[object]) -> Counter[str]:
    modules = ("service", "hypercorn", "h11", "wsproto")
    return Counter(type(each).__qualname__ for each in objects if type(each).__module__.startswith(modules))


@pytest.mark.parametrize("visit", [http, closed, dropped])
def test_an_ended_connection_leaves_nothing_to_the_collector(visit: Callable[[int], None]) -> None:
    with ours(APP, "uvloop") as server:
        visit(server.port)
        assert until(lambda: ended(server), 2)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(20):
                visit(server.port)
            assert until(lambda: ended(server), 2)
            time.sleep(0.05)  # its last callbacks
            gc.collect()
            left = names(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == Counter()
