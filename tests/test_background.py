"""Background work: restarted when it fails, and ended even when a library swallows a cancellation."""

import asyncio

from prometheus_client import Counter

from service.background import Background, end
from tests.waiting import eventually


async def test_work_that_fails_is_counted_and_started_again(monkeypatch: object) -> None:
    failures = Counter("failures", "of the test", registry=None)
    starts: list[int] = []

    async def work() -> None:
        starts.append(1)
        if len(starts) == 1:
            raise RuntimeError("once")
        await asyncio.Event().wait()

    async with Background(failures) as background:
        background.start("work", work)
        await eventually(lambda: len(starts) == 2)
    assert failures._value.get() == 1


async def test_a_task_that_swallows_a_cancellation_is_asked_again() -> None:
    swallowed: list[int] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()
    assert len(swallowed) == 3
