"""One submission of a user at a time on this node.

PostgreSQL's lock of the user (`store.lock_user`) does that for the fleet, but each who waits for it holds one of the
pool's connections: a single user's burst would take them all. So they wait here first, holding nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from service.db.pool import AWAY_TEXT
from service.errors import AtpError, DatabaseUnavailable, TooMany

RETRY_S = 1.0


class Line:
    """Those of one user: the one who is in, and who waits."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class UserLocks:
    """`async with locks.hold(user_id)`; nobody waits longer than `wait_s`, nor behind more than `most_waiting`. `up`:
    whether PostgreSQL answers, for whom it is that they wait."""

    def __init__(self, wait_s: float, most_waiting: int, up: Callable[[], bool] = lambda: True) -> None:
        self._wait_s, self._most_waiting, self._up = wait_s, most_waiting, up
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()  # gone with the last who is in

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def hold(self, user_id: str) -> AsyncIterator[None]:
        """First come, first served. Raises TooMany, or DatabaseUnavailable, where it is not this one's turn in time."""
        line = self._lines.setdefault(user_id, Line())
        await self._acquired(line)
        try:
            yield
        finally:
            line.lock.release()

    async def _acquired(self, line: Line) -> None:
        if line.waiting >= self._most_waiting:
            raise self._refusal()
        line.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await line.lock.acquire()
        except TimeoutError:
            raise self._refusal() from None
        finally:
            line.waiting -= 1

    def _refusal(self) -> AtpError:
        if not self._up():
            return DatabaseUnavailable(AWAY_TEXT)
        return TooMany("Other submissions of this user are under way.", retry_after_s=RETRY_S)
