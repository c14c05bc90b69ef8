"""Watches: what the bus tells of a task reaches whoever follows it here, and a slow reader is let go."""

import asyncio
from typing import Any

from service.live.bus_entries import Entry
from service.live.messages import Push
from service.live.watches import Watches

FAR_MS = 4_000_000_000_000
ANAS = ("ana", "t1")


def entry(user: str = "ana", seq: str | None = "1-0", local_tick: int | None = None, **payload: Any) -> Entry:
    push = Push(type="task", users=frozenset({user}), payload=payload or {"task": {"id": "t1"}}, expires_at_ms=FAR_MS)
    return Entry(seq, push, local_tick)


def heard(watches: Watches, *entries: Entry) -> None:
    for told in entries:
        assert isinstance(told.message, Push)
        watches.heard(told, told.message)


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.01


async def test_only_news_of_the_task_and_its_owner_are_heard() -> None:
    watches = Watches(lambda: False)
    with watches.following(ANAS) as watch:
        heard(watches, entry("ben"), entry(task={"id": "t2"}), entry(batch_id="b", count=2), entry(seq="2-0"))
        assert await watch.next(soon()) == ("2-0", {"task": {"id": "t1"}})
        assert await watch.next(soon()) is None
    assert len(watches) == 0


async def test_what_was_heard_while_redis_was_away_is_not_heard_again() -> None:
    watches = Watches(lambda: False)
    with watches.following(ANAS) as watch:
        heard(watches, entry(seq=None), entry(seq="2-0", local_tick=0))
        assert await watch.next(soon()) == (None, {"task": {"id": "t1"}})
        assert await watch.next(soon()) is None


async def test_a_reader_sixty_four_behind_is_ended_and_what_waits_forgotten() -> None:
    watches = Watches(lambda: False)
    with watches.following(ANAS) as slow, watches.following(ANAS) as quick:
        for _ in range(64):
            heard(watches, entry())
            await quick.next(soon())
        assert not slow.ended
        heard(watches, entry())
        assert (slow.ended, quick.ended) == (True, False)
        assert await slow.next(soon()) is None


async def test_a_doubt_wakes_a_reader_once() -> None:
    watches = Watches(lambda: False)
    later = asyncio.get_running_loop().time() + 60
    with watches.following(ANAS) as watch:
        asyncio.get_running_loop().call_soon(watches.doubt)
        assert await watch.next(later) is None
        heard(watches, entry())
        assert await watch.next(later) is not None


async def test_a_node_that_drains_ends_all_and_whoever_comes_then() -> None:
    draining = False
    watches = Watches(lambda: draining)
    with watches.following(ANAS) as watch:
        draining = True
        watches.end_all()
        assert watch.ended
        with watches.following(ANAS) as late:
            assert late.ended
