"""What was told already: a bounded memory, so that a repeated webhook tells nothing twice."""

import time
from collections import OrderedDict
from collections.abc import Callable

# About 2 MB; the oldest go first, and would be told twice.
MOST = 10_000
# Alertmanager sends all of a group when one of it changes, every `group_interval` at the most often; and repeats it
# every `repeat_interval`, 4 h by default: that opens an issue again that somebody closed while it still fires.
REMIND_AFTER_S = 3600.0


class Told:
    """The news told within the last hour of the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def __contains__(self, news: tuple[str, ...]) -> bool:
        at = self._at.get(news)
        return at is not None and self._clock() - at < REMIND_AFTER_S

    def add(self, news: tuple[str, ...]) -> None:
        self._at[news] = self._clock()
        self._at.move_to_end(news)
        if len(self._at) > MOST:
            self._at.popitem(last=False)
