"""What a node remembers, and a node without any Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from service.live import bus_memory
from service.live.bus_entries import LARGEST, Seq
from service.live.bus_memory import ActedOn, History, LocalSequence
from service.live.messages import Disconnect
from tests.live.bus_nodes import BusNodes, push


@pytest.fixture
async def nodes() -> AsyncIterator[BusNodes]:
    async with AsyncExitStack() as stack:
        yield BusNodes(stack)


def told(history: History, last: str, now_ms: float = 1_000_000) -> list[str] | None:
    entries = history.after(Seq.parse(last), None, now_ms)
    return None if entries is None else [str(entry.message.payload["text"]) for entry in entries]


async def test_without_redis_a_node_delivers_in_order_and_says_that_it_is_alone(nodes: BusNodes) -> None:
    node = await nodes.start(clock=lambda: 5.0)
    start = node.bus.position
    said = await asyncio.gather(*(node.bus.publish(push(str(number))) for number in range(3)))
    assert [(published.seq, published.degraded) for published in said] == [
        ("5000-1", True),
        ("5000-2", True),
        ("5000-3", True),
    ]
    assert node.texts() == ["0", "1", "2"]
    assert (start, node.bus.position) == ("5000-0", "5000-3")
    assert node.missed("5000-2") == ["2"]
    assert node.missed("4999-9") is None  # of an earlier life of this node
    assert node.missed("65000-0") is None
    assert node.running
    await asyncio.wait_for(node.running, 1)  # there is nothing to follow


async def test_without_redis_only_pushes_are_told_again(nodes: BusNodes) -> None:
    node = await nodes.start()
    start = node.bus.position
    await node.bus.publish(Disconnect(user_id="ana"))
    await node.bus.publish(push("a"))
    assert len(node.given) == 2
    assert node.missed(start) == ["a"]


def test_places_grow_when_the_clock_goes_back() -> None:
    times = iter([100.0, 100.0, 99.0, 99.5, 100.001])
    sequence = LocalSequence(lambda: next(times))
    assert [str(sequence.next()) for _ in range(4)] == ["100000-1", "100000-2", "100000-3", "100001-0"]


def test_the_place_before_another() -> None:
    assert Seq(5, 3).before() == Seq(5, 2)
    assert Seq(5, 0).before() == Seq(4, LARGEST)


def test_five_minutes_are_remembered() -> None:
    history = History(Seq(0))
    for minute in range(7):
        history.append(Seq(minute * 60_000), push(str(minute)), now_ms=minute * 60_000)
    assert told(history, "60000-0") == ["2", "3", "4", "5", "6"]
    assert told(history, "0-0") == ["1", "2", "3", "4", "5", "6"]
    history.append(Seq(900_000), push("late"), now_ms=900_000)
    assert told(history, "360000-0") == ["late"]
    assert told(history, "300000-0") is None


def test_a_place_between_entries_is_as_good_as_one_of_them() -> None:
    history = History(Seq(10))
    for n in (20, 30):
        history.append(Seq(n), push(str(n)), now_ms=30)
    assert told(history, "10-0") == ["20", "30"]
    assert told(history, "25-7") == ["30"]
    assert told(history, "9-99") is None


def test_at_most_so_many_are_remembered_and_finding_the_last_is_quick() -> None:
    history = History(Seq(0))
    for n in range(1, 10_011):
        history.append(Seq(1000, n), push(str(n)), now_ms=1000)
    assert told(history, "1000-9") is None
    assert len(told(history, "1000-10") or []) == 10_000
    started = time.perf_counter()
    for _ in range(1000):
        told(history, "1000-10000")
    assert time.perf_counter() - started < 0.5


def test_an_entry_older_than_the_memory_is_not_kept() -> None:
    history = History(Seq(0))
    history.append(Seq(1000), push("old"), now_ms=10_000_000)
    assert told(history, "999-0") is None
    assert told(history, "1000-0", now_ms=10_000_000) == []


def test_before_any_place_is_known_nothing_can_be_told() -> None:
    assert told(History(), "1-0") is None


def test_ids_are_acted_on_once_and_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_memory, "IDS", 3)
    acted = ActedOn()
    assert acted.by_stream("a") == (True, None)
    assert acted.by_stream("a") == (False, None)
    acted.alone("b", tick=4)
    assert acted.by_stream("b") == (True, 4)
    assert acted.by_stream("b") == (False, None)
    for name in "cd":
        acted.by_stream(name)
    assert [name in acted for name in "abcd"] == [False, True, True, True]
