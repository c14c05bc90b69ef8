"""Keep-alive clients while the server drains: none of their requests is lost."""

import asyncio
import threading
import time
from typing import Any

import pytest

from service.server.server import ServerConfig
from tests.server.server_threads import LOOPS, ours
from tests.server.slow_clients import GET, connect, is_listening, response, until, until_closed

every_loop = pytest.mark.parametrize("loop", LOOPS)


class Stream:
    """Sends the head of its answer at once, and the body when told."""

    def __init__(self) -> None:
        self.rest = threading.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some ", "more_body": True})
        await asyncio.to_thread(self.rest.wait, 5)
        await send({"type": "http.response.body", "body": b"more"})


@every_loop
def test_a_client_whose_stream_ends_during_the_drain_may_ask_once_more(loop: str) -> None:
    stream = Stream()
    with ours(stream.app, loop) as server, connect(server.port) as sock:
        sock.sendall(GET)
        first = response(sock)
        server.stop()
        assert until(lambda: not is_listening(server.port), 1)
        stream.rest.set()
        assert first.read() == b"some more"
        assert first.getheader("connection") is None
        time.sleep(0.1)  # a client's think time: a server that closes now resets the next request
        sock.sendall(GET)
        second = response(sock)
        assert (second.getheader("connection"), second.read()) == ("close", b"some more")
        assert until_closed(sock) == b""
        assert server.counted == []


@every_loop
def test_a_client_that_asks_no_more_holds_the_drain_up_for_the_retire_time_only(loop: str) -> None:
    stream = Stream()
    with ours(stream.app, loop, retire_s=0.3, drain_s=5.0) as server, connect(server.port) as sock:
        sock.sendall(GET)
        first = response(sock)
        server.stop()
        assert until(lambda: not is_listening(server.port), 1)
        stream.rest.set()
        assert first.read() == b"some more"
        began = time.monotonic()
        assert until_closed(sock) == b""
        assert 0.2 < time.monotonic() - began < 1
        assert server.counted == []
    assert ServerConfig().retire_s == 1.0


@every_loop
def test_bytes_after_the_last_request_do_not_hold_the_drain_up(loop: str) -> None:
    stream = Stream()
    with ours(stream.app, loop, retire_s=0.3, drain_s=5.0) as server, connect(server.port) as sock:
        sock.sendall(GET + b"GET /")
        first = response(sock)
        server.stop()
        assert until(lambda: not is_listening(server.port), 1)
        stream.rest.set()
        assert first.read() == b"some more"
        sock.close()
        server.thread.join(1)
        assert not server.thread.is_alive()
        assert server.counted == []
