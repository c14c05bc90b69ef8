"""The arithmetic of the sliding window counter, in whole milliseconds.

Time is cut into windows; what was admitted in the one before counts with the share of it that still lies within one
window's length of now:

    used = floor(previous * (window - elapsed) / window) + current

A hit of some cost is admitted when used + cost <= limit. It is the weighting of the `limits` library; its windows, too,
begin with a caller's first hit. `lua/hit.lua` does the same sums.
"""

from typing import NamedTuple


class Window(NamedTuple):
    """Two windows as they stand: what each admitted, and how long ago the current one began (less than its length)."""

    previous: int
    current: int
    elapsed_ms: int

    def later(self, by_ms: int, window_ms: int) -> "Window":
        """As it will stand when nothing is admitted meanwhile."""
        elapsed_ms = self.elapsed_ms + by_ms
        if elapsed_ms >= 2 * window_ms:
            return Window(0, 0, 0)
        if elapsed_ms >= window_ms:
            return Window(self.current, 0, elapsed_ms - window_ms)
        return Window(self.previous, self.current, elapsed_ms)

    def used(self, window_ms: int) -> int:
        return self.previous * (window_ms - self.elapsed_ms) // window_ms + self.current

    def wait_ms(self, limit: int, window_ms: int, cost: int = 1) -> int | None:
        """The time after which a hit of this cost will be admitted if no other is; None: it never will.

        It is the earliest millisecond, so nobody is admitted sooner.
        """
        if cost > limit:
            return None
        left_ms = window_ms - self.elapsed_ms
        room = limit - cost - self.current
        if room >= 0:
            # Where the window before counts at most `room`; at its end it counts nothing.
            return max(0, left_ms - longest_share_ms(self.previous, room, window_ms))
        # Not before the current window has become the one before.
        return left_ms + window_ms - longest_share_ms(self.current, limit - cost, window_ms)


def longest_share_ms(count: int, room: int, window_ms: int) -> int:
    """The longest part of a window of which `count` hits weigh at most `room`: floor(count * part / window) <= room."""
    if count <= room:
        return window_ms
    return ((room + 1) * window_ms - 1) // count
