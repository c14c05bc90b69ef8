"""Who follows a task on this node: what the bus tells of it is handed to each of them; a slow one is ended.

Of a task that nobody follows here a message costs a look-up in a dictionary.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from service.live.bus_entries import Entry
from service.live.messages import Push

# Of one reader: 16 s of a streamed answer, and 1 MB at the very most.
MOST_WAITING = 64

Key = tuple[str, str]  # a user's id and a task's


class Heard(NamedTuple):
    """What the bus told, and its place there; None while Redis is away."""

    seq: str | None
    payload: dict[str, Any]


class Watch:
    """One reader's. `ended`: it is too slow, or the node drains; what waited is forgotten, the client may come back."""

    def __init__(self, *, ended: bool) -> None:
        self._waiting: deque[Heard] = deque()
        self._woken = asyncio.Event()
        self._doubted = False
        self.ended = ended

    def tell(self, heard: Heard) -> None:
        if len(self._waiting) == MOST_WAITING:
            self.end()
        elif not self.ended:
            self._waiting.append(heard)
            self._woken.set()

    def doubt(self) -> None:
        """Something may be lost."""
        self._doubted = True
        self._woken.set()

    def end(self) -> None:
        self.ended = True
        self._waiting.clear()
        self._woken.set()

    async def next(self, until_s: float) -> Heard | None:
        """None when it has ended, or to look for oneself: at `until_s` of the loop's clock, or when it is in doubt."""
        try:
            async with asyncio.timeout_at(until_s):
                while not (self._waiting or self._doubted or self.ended):
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            return None
        if self._waiting:
            return self._waiting.popleft()
        self._doubted = False
        return None


class Watches:
    """`draining`: whether the node wants its clients to go; who comes then is ended at once."""

    def __init__(self, draining: Callable[[], bool]) -> None:
        self._draining = draining
        self._watches: dict[Key, set[Watch]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._watches.values()))

    @contextmanager
    def following(self, key: Key) -> Iterator[Watch]:
        """Everything that this node hears from now on."""
        watch = Watch(ended=self._draining())
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]

    def heard(self, entry: Entry, push: Push) -> None:
        if push.type != "task" or entry.local_tick is not None:  # the latter: it was heard before, while Redis was away
            return
        for key in about(push):
            for watch in self._watches.get(key, ()):
                watch.tell(Heard(entry.seq, push.payload))

    def doubt(self) -> None:
        """The bus has lost something."""
        for watch in self._all():
            watch.doubt()

    def end_all(self) -> None:
        for watch in self._all():
            watch.end()

    def _all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]


def about(push: Push) -> list[Key]:
    """Whose task it is about, and which; nobody's where it is about none."""
    task = push.payload.get("task")
    return [(user, str(task.get("id"))) for user in push.users or ()] if isinstance(task, dict) else []
