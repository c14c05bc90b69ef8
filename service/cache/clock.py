"""One clock for the moments that nodes compare: Redis's, as far as this node can tell it."""

import math
import time
from collections.abc import Callable

# Flushes in one instant put it forward by a millisecond each; what began so close to one may be said to come after it.
INSTANT_MS = 10


class SharedClock:
    """Moments in Unix milliseconds. They go on with the monotonic clock, so a jump of the wall clock moves none.

    Until Redis has told its time, and where there is none, they start from this node's wall clock. The answer that
    tells the time is as old as it travelled, so this clock is a little behind Redis's, never ahead: something begun
    before a flush is never taken for younger. A flush may put it forward for this node (`not_before`); what other nodes
    are told is then `dated` back.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._ahead_s = self._told_s = wall() - monotonic()  # as it is shown, and as Redis told it
        self._past_lead_ms = self._past_until_ms = 0

    def now_ms(self) -> int:
        return int((self.monotonic() + self._ahead_s) * 1000)

    @property
    def lead_ms(self) -> int:
        """How far it was put forward."""
        return math.ceil((self._ahead_s - self._told_s) * 1000)

    def dated(self, moment_ms: int) -> int:
        """What this clock showed then, without what it had been put forward: for nodes whose clocks were not."""
        past_ms = self._past_lead_ms if moment_ms <= self._past_until_ms else 0
        lead_ms = max(self.lead_ms, past_ms)
        return moment_ms - lead_ms if lead_ms > INSTANT_MS else moment_ms

    def not_before(self, moment_ms: int) -> None:
        """It is at least `moment_ms`: somebody has seen that moment already."""
        if self.now_ms() < moment_ms:
            self._ahead_s = (moment_ms + 0.5) / 1000 - self.monotonic()  # the half is for rounding down

    def measured(self, server_ms: int) -> None:
        """Redis said that it is `server_ms`, just now."""
        self._past_lead_ms, self._past_until_ms = self.lead_ms, self.now_ms()
        self._ahead_s = self._told_s = server_ms / 1000 - self.monotonic()
