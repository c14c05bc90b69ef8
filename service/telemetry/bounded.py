"""Histograms whose label sets are not all known at start: so many children each, and so many series together."""

from collections.abc import Callable

from prometheus_client import Histogram

OTHER = "other"


class Room:
    """The series that the bounded histograms of a process may have together: whoever comes first takes them."""

    def __init__(self, series: int) -> None:
        self.left = series

    def take(self, series: int) -> bool:
        """False: there is no room for so many."""
        if series > self.left:
            return False
        self.left -= series
        return True


class Bounded:
    """`histogram(*label_values)` is a child, looked up once: that costs more than observing.

    Beyond `most` of them, or where there is no room, it is the one whose label values `other` makes of these, and
    `overflowed` is told each time.
    """

    def __init__(
        self,
        histogram: Histogram,
        room: Room,
        most: int,
        other: Callable[..., tuple[str, ...]],
        overflowed: Callable[[], None],
    ) -> None:
        self._histogram, self._room, self._most = histogram, room, most
        self._other, self._overflowed = other, overflowed
        self._series_each = len(histogram._upper_bounds) + 2  # the buckets, _sum, _count
        self._children: dict[tuple[str, ...], Histogram] = {}

    def __call__(self, *values: str) -> Histogram:
        return self._children.get(values) or self._new(values)

    def _new(self, values: tuple[str, ...]) -> Histogram:
        if len(self._children) >= self._most or not self._room.take(self._series_each):
            self._overflowed()
            return self._histogram.labels(*self._other(*values))
        child = self._children[values] = self._histogram.labels(*values)
        return child
