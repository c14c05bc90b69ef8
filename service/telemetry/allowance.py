"""So many a minute, and no more."""

import time
from collections.abc import Callable


class Allowance:
    """At most `per_minute` permits in each minute of the monotonic clock."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._window, self._used = -1, 0

    def take(self) -> bool:
        window = int(self._clock() // 60)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        return self._used <= self._per_minute
