"""One socket's patience: idle, dead, slow; by a link of the test's own and a clock that is the loop's."""

import asyncio
import time

import pytest

from service.live.protocol import PING_FRAME, Close, text_frame
from service.live.socket import Guest, Patience, Socket
from tests.waiting import eventually

ANA = Guest("s1", "ana", b"k", "mobile", "192.0.2.1")


class Line:
    """The end of a connection: remembers what was done to it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ends: list[tuple[int, str] | str] = []
        self.waiting = 0

    def on_pong(self) -> None:
        """Replaced by the socket."""

    def push(self, frame: bytes) -> int:
        self.frames.append(frame)
        return self.waiting

    def unread(self) -> int:
        return self.waiting

    async def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    async def shut(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))

    def abort(self) -> None:
        self.ends.append("aborted")


async def ended(line: Line, within_s: float = 2.0) -> list[tuple[int, str] | str]:
    await eventually(lambda: bool(line.ends), within_s)
    return line.ends


async def test_a_silent_client_is_closed_at_the_idle_limit_and_not_before() -> None:
    line = Line()
    loop = asyncio.get_running_loop()
    began = loop.time()
    socket = Socket(ANA, line, Patience(idle_s=0.2, ping_s=9), lambda s: None)
    assert socket.open()
    assert await ended(line) == [(Close.GOING_AWAY, "idle")]
    assert 0.2 <= loop.time() - began < 0.3
    assert socket.ended_by == "1001"
    await socket.end()


async def test_every_message_moves_the_idle_limit() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(idle_s=0.2, ping_s=9), lambda s: None)
    assert socket.open()
    for _ in range(8):
        await asyncio.sleep(0.05)
        socket.heard()
    assert line.ends == []
    await ended(line)
    await socket.end()


async def test_a_peer_that_answers_no_ping_is_cut() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(ping_s=0.1, pong_s=0.1), lambda s: None)
    assert socket.open()
    assert await ended(line) == ["aborted"]
    assert line.frames == [PING_FRAME]
    assert socket.ended_by == "no_pong"
    await socket.end()


async def test_a_pong_is_a_sign_of_life_and_its_time_is_told() -> None:
    line, times = Line(), list[float]()
    socket = Socket(ANA, line, Patience(ping_s=0.05, pong_s=0.1), times.append)
    assert socket.open()
    for count in (1, 2, 3):
        await eventually(lambda count=count: len(line.frames) == count)  # type: ignore[misc]
        line.on_pong()
    assert line.ends == []
    assert len(times) == 3
    assert all(0 <= seconds < 0.1 for seconds in times)
    await socket.end()


async def test_a_process_that_stood_still_reads_what_waits_before_it_judges() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(idle_s=0.1, ping_s=9), lambda s: None)
    assert socket.open()
    time.sleep(0.8)  # noqa: ASYNC251 - the loop stands still, as after SIGSTOP
    await asyncio.sleep(0.05)
    assert line.ends == []  # the message may be in the kernel
    socket.heard()
    await asyncio.sleep(0.05)
    assert line.ends == []
    await socket.end()


async def test_a_reader_too_far_behind_is_cut_and_gets_nothing_more() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(queue_bytes=1000), lambda s: None)
    assert socket.open()
    socket.push(text_frame(b"one"))
    line.waiting = 1001
    socket.push(text_frame(b"two"))
    socket.push(text_frame(b"three"))
    assert line.ends == ["aborted"]
    assert line.frames == [b"\x81\x03one", b"\x81\x03two"]
    assert socket.ended_by == "slow_reader"
    await socket.end()


async def test_messages_behind_are_those_since_its_reader_had_taken_all() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(), lambda s: None)
    assert socket.open()
    behind = []
    for line.waiting in (0, 12, 40, 3, 0, 5):
        socket.push(text_frame(b"one"))
        behind.append(socket.behind)
    assert behind == [0, 1, 2, 3, 0, 1]
    await socket.end()


async def test_it_is_closed_once_whoever_asks() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(), lambda s: None)
    assert socket.open()
    socket.close(Close.DISCONNECTED, "first")
    socket.close(Close.RESTART, "second")
    await socket.end()
    assert line.ends == [(4002, "first")]


async def test_an_end_that_was_decided_during_the_handshake_begins_when_it_is_open() -> None:
    line = Line()
    socket = Socket(ANA, line, Patience(), lambda s: None)
    socket.close(Close.BLOCKED, "spam")
    assert line.ends == []
    assert not socket.open()
    await socket.end()
    assert line.ends == [(4003, "spam")]


@pytest.mark.parametrize(("size", "head"), [(125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (70_000, b"\x81\x7f")])
def test_a_frame_has_the_length_of_rfc_6455(size: int, head: bytes) -> None:
    frame = text_frame(b"x" * size)
    assert frame.startswith(head)
    assert frame.endswith(b"x" * size)
