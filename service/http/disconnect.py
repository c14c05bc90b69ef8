"""Stop working for a client that is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


@asynccontextmanager
async def until_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of this block when the client disconnects, so that its upstream calls end too.

    The body keeps its own task (a watcher is the second one): asyncio.timeout blocks may span it. The request's body
    must have been read before. Cancels and uncancels as asyncio.timeout does, so a cancellation from outside goes on;
    anyio's CancelScope does it too, at several times the cost.

    Raises:
        ClientGone: the client left.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - inside a coroutine there always is one; mypy cannot know
    before = task.cancelling()
    watcher = asyncio.create_task(watch(receive, task))
    try:
        yield
    except asyncio.CancelledError:
        if gone(watcher) and task.uncancel() <= before:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def watch(receive: Receive, task: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def gone(watcher: asyncio.Task[None]) -> bool:
    """Whether the watcher ended by itself, which it does only after a disconnect."""
    return watcher.done() and not watcher.cancelled()
