"""The children of a histogram whose label sets are not all known at start: at most so many, then `other`."""

from collections.abc import Callable

from prometheus_client import Histogram

OTHER = "other"


class Bounded:
    """`histogram(*label_values)` is a child, looked up once: that costs more than observing. Beyond `most` of them it
    is the one whose label values `other` makes of these, and `overflowed` is told each time."""

    def __init__(
        self, histogram: Histogram, most: int, other: Callable[..., tuple[str, ...]], overflowed: Callable[[], None]
    ) -> None:
        self._histogram, self._most, self._other, self._overflowed = histogram, most, other, overflowed
        self._children: dict[tuple[str, ...], Histogram] = {}

    def __call__(self, *values: str) -> Histogram:
        return self._children.get(values) or self._new(values)

    def _new(self, values: tuple[str, ...]) -> Histogram:
        if len(self._children) >= self._most:
            self._overflowed()
            return self._histogram.labels(*self._other(*values))
        child = self._children[values] = self._histogram.labels(*values)
        return child
