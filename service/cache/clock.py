"""One clock for the moments that nodes compare: Redis's, as far as this node can tell it."""

import time
from collections.abc import Callable


class SharedClock:
    """Moments in Unix milliseconds. They go on with the monotonic clock, so a jump of the wall clock moves none.

    Until Redis has told its time, and where there is none, they start from this node's wall clock. The answer that
    tells the time is as old as it travelled, so this clock is a little behind Redis's, never ahead: something begun
    before a flush is never taken for younger.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._ahead_s = wall() - monotonic()

    def now_ms(self) -> int:
        return int((self.monotonic() + self._ahead_s) * 1000)

    def measured(self, server_ms: int) -> None:
        """Redis said that it is `server_ms`, just now."""
        self._ahead_s = server_ms / 1000 - self.monotonic()
