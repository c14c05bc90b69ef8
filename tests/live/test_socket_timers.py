"""The timers of sockets on uvloop, which the service runs on: it rounds to milliseconds, so some ring too early."""

import asyncio

import uvloop

from service.live.socket import Patience, Socket
from tests.live.test_socket import ANA, Line
from tests.waiting import eventually


async def silent_peers(count: int, complaints: list[object]) -> int:
    """How many sockets whose peers answer nothing are cut; `complaints` gets what the loop had to complain of."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lines = [Line() for _ in range(count)]
    patience = Patience(ping_s=0.1, pong_s=0.1)
    sockets = [Socket(ANA, line, patience, lambda s: None) for line in lines]
    await eventually(lambda: bool(complaints) or all(line.ends for line in lines), 2)
    for socket in sockets:
        await socket.end()
    return sum(line.ends == ["aborted"] for line in lines)


def test_no_silent_peer_is_forgotten_because_its_timer_rang_early() -> None:
    complaints: list[object] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(silent_peers(200, complaints)) == 200
    assert complaints == []
