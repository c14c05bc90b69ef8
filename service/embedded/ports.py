"""Which loopback port a part gets, and asking it whether it is up."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.embedded.errors import PartFailed, PortTaken

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 2.0
FREE_PORT_TRIES = 3

T = TypeVar("T")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of before do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


async def start_on(name: str, port: int, start: Callable[[int], Awaitable[T]]) -> T:
    """Start on `port`, or for 0 on a free one (again when another program was quicker); raises PortTaken."""
    failure: PartFailed | None = None
    for _ in range(1 if port else FREE_PORT_TRIES):
        chosen = port or free_port()
        if not is_free(chosen):
            continue
        try:
            return await start(chosen)
        except PartFailed as error:
            if is_free(chosen):
                raise
            failure = error
    raise PortTaken(name, chosen) from failure


async def answers(port: int, question: bytes, expected: bytes) -> bool:
    """Whether the first bytes answered to `question` hold `expected`; False too where nobody listens."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(question)
                return expected in await reader.read(1024)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
