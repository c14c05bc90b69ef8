"""Callers that were refused a moment ago, refused again without asking Redis."""

from collections import OrderedDict
from dataclasses import dataclass

KEPT_REFUSALS = 100_000
# For less than this it is not worth remembering.
LEAST_S = 0.005


@dataclass(frozen=True, slots=True)
class Refusal:
    """One more request cannot be admitted before `until`; it will be at `admitted_at` if nobody else asks; at
    `clear_at` nothing counts any more. All on the monotonic clock.

    `until` counts from when Redis was asked and `admitted_at` from when it had answered: its own clock was read in
    between, so neither is on the wrong side. `limit` was enforced, `asked` is the limit it was made from.
    """

    asked: int
    limit: int
    until: float
    admitted_at: float
    clear_at: float
    degraded: bool


class Refusals:
    """By key, the oldest give way. What is forgotten costs a call, no more."""

    def __init__(self, most: int = KEPT_REFUSALS) -> None:
        self._most = most
        self._kept: OrderedDict[str, Refusal] = OrderedDict()

    def note(self, key: str, refusal: Refusal, now: float) -> None:
        if refusal.until - now < LEAST_S:
            return
        self._kept[key] = refusal
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def find(self, key: str, asked: int, now: float) -> Refusal | None:
        """The refusal in force for this limit: when an administrator has changed it, Redis is asked again."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found.asked == asked and now < found.until:
            return found
        del self._kept[key]
        return None
