"""Windows of this node alone, while Redis is away.

The `limits` library's MemoryStorage starts a task at each hit that looks through every key, keeps as many as come, and
reads the wall clock; hence this one.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.limits.hits import Hit, Outcome
from service.limits.window import Window

KEPT_SUBJECTS = 50_000


def alone() -> int:
    return 1


class MemoryWindows:
    """Implements Windows. A limit is divided by the last known number of nodes, rounded up, so at least 1; with a
    `quota` it is never more than that.

    At most `most` callers are kept. When there are more, the one that was not heard of for longest is forgotten; where
    `closed`, the new one is refused instead.
    """

    def __init__(
        self,
        nodes: Callable[[], int] = alone,
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int = KEPT_SUBJECTS,
        closed: bool = False,
        quota: int | None = None,
    ) -> None:
        self._nodes, self._clock, self._most, self._closed, self._quota = nodes, clock, most, closed, quota
        # Key -> when the current window began, both counts, when neither will count (milliseconds).
        self._kept: OrderedDict[str, tuple[int, int, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def hit(self, hits: Sequence[Hit]) -> list[Outcome]:
        now_ms, nodes = int(self._clock() * 1000), max(1, self._nodes())
        return [self._hit(hit, now_ms, self._share(hit.limit, nodes)) for hit in hits]

    def _share(self, limit: int, nodes: int) -> int:
        share = math.ceil(limit / nodes)
        return share if self._quota is None else min(share, self._quota)

    def _hit(self, hit: Hit, now_ms: int, limit: int) -> Outcome:
        window = self._window(hit, now_ms)
        if window.used(hit.window_ms) + hit.cost > limit or not self._make_room(hit.key, now_ms):
            return Outcome(False, window, limit)
        window = Window(window.previous, window.current + hit.cost, window.elapsed_ms)
        start_ms = now_ms - window.elapsed_ms
        self._kept[hit.key] = start_ms, window.previous, window.current, start_ms + 2 * hit.window_ms
        self._kept.move_to_end(hit.key)
        return Outcome(True, window, limit)

    def _window(self, hit: Hit, now_ms: int) -> Window:
        kept = self._kept.get(hit.key)
        if kept is None:
            return Window(0, 0, 0)
        start_ms, previous, current, _ = kept
        return Window(previous, current, 0).later(now_ms - start_ms, hit.window_ms)

    def _make_room(self, key: str, now_ms: int) -> bool:
        """Whether the key may be kept."""
        if key in self._kept or len(self._kept) < self._most:
            return True
        oldest, (*_, ends_ms) = next(iter(self._kept.items()))
        if self._closed and ends_ms > now_ms:
            return False
        del self._kept[oldest]
        return True
