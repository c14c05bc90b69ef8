"""When each of some keys ends, and which is the next: a heap of moments whose entries may be out of date."""

import heapq
import math
from collections.abc import Callable


class Deadlines:
    """Moments are on the monotonic clock. An entry of the heap counts while it is the one that the key has."""

    def __init__(self) -> None:
        self._at: dict[bytes, float] = {}
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key_hash: bytes, at: float) -> bool:
        """Take in a key, or an earlier end of one; whether it is now the next to end.

        A later end than the one known is not believed: the key is looked up at the earlier, which ends nothing by
        itself and says when the next is.
        """
        if self._at.get(key_hash, math.inf) <= at:
            return False
        self.move(key_hash, at)
        return self.first() == at

    def move(self, key_hash: bytes, at: float | None) -> None:
        """The key ends then, whatever was said before; None: never."""
        if at is None:
            self._at.pop(key_hash, None)
        elif self._at.get(key_hash) != at:
            self._at[key_hash] = at
            heapq.heappush(self._heap, (at, key_hash))

    def first(self) -> float:
        """The next moment; infinity when there is none."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[bytes]:
        """Take out the keys whose moment has come."""
        found = []
        while self.first() <= now:
            _, key_hash = heapq.heappop(self._heap)
            del self._at[key_hash]
            found.append(key_hash)
        return found

    def keep(self, wanted: Callable[[bytes], bool]) -> None:
        """Forget all other keys, and the heap's entries that no longer count."""
        self._at = {key_hash: at for key_hash, at in self._at.items() if wanted(key_hash)}
        self._heap = [(at, key_hash) for key_hash, at in self._at.items()]
        heapq.heapify(self._heap)
