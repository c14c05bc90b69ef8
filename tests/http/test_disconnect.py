"""until_gone: cancels what a client no longer waits for, and nothing else."""

import asyncio
from typing import Any

import pytest

from service.http.disconnect import ClientGone, until_gone


class Client:
    """An ASGI `receive` whose client leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_a_client_that_leaves_cancels_the_block() -> None:
    client = Client()
    asyncio.get_running_loop().call_later(0.01, client.left.set)
    with pytest.raises(ClientGone):
        async with until_gone(client.receive):
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_ends_is_left_alone() -> None:
    client = Client()
    async with until_gone(client.receive):
        await asyncio.sleep(0)
    client.left.set()
    await asyncio.sleep(0.01)


async def test_a_cancellation_from_outside_stays_one() -> None:
    client = Client()

    async def work() -> None:
        async with until_gone(client.receive):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_inside_the_block_is_a_timeout_and_not_a_departure() -> None:
    async with until_gone(Client().receive):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
