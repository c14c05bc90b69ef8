"""Connections that are reset as they are made, on uvloop, which has an error of its own for writing to one."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import uvloop

from service.errors import StateUnavailable
from service.settings import load
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics

CALLS = 400
RESET = struct.pack("ii", 1, 0)  # SO_LINGER without a wait: close() sends a RST


@pytest.fixture
def resetting_port() -> Iterator[int]:
    """Accepts, and resets at once, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=CALLS)

    def reset_all() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()

    thread = threading.Thread(target=reset_all)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


async def unavailable(url: str) -> int:
    """How many calls found Redis away, whatever the driver said; anything else is raised."""
    redis = RedisState(load(redis_url=url), Metrics())
    found = await asyncio.gather(*(redis.ping() for _ in range(CALLS)), return_exceptions=True)
    await redis.close()
    for error in found:
        if error is not None and not isinstance(error, StateUnavailable):
            raise error
    return sum(isinstance(error, StateUnavailable) for error in found)


def test_a_connection_reset_while_it_is_made_is_an_outage_like_any_other(resetting_port: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(unavailable(f"redis://127.0.0.1:{resetting_port}/0")) == 400
