"""Stop working for a client that is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope
from starlette.types import Receive


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


@asynccontextmanager
async def until_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of this block when the client disconnects, so that its upstream calls end too.

    The body keeps its own task (a watcher is the second one): asyncio.timeout blocks may span it. The request's body
    must have been read before.

    Raises:
        ClientGone: the client left.
    """
    with CancelScope() as scope:
        watcher = asyncio.create_task(watch(receive, scope))
        try:
            yield
        finally:
            watcher.cancel()
    if scope.cancelled_caught:
        raise ClientGone


async def watch(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
