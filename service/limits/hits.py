"""What is asked of a store of windows, and what it answers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.limits.window import Window


class Hit(NamedTuple):
    """`cost` requests of the caller behind `key`, who may make `limit` in `window_ms`."""

    key: str
    limit: int
    window_ms: int
    cost: int = 1


class Outcome(NamedTuple):
    """Whether they were admitted, how the windows stand after it, and the limit that was enforced."""

    admitted: bool
    window: Window
    limit: int


class Windows(Protocol):
    """Counts hits; one that is refused counts nothing."""

    async def hit(self, hits: Sequence[Hit]) -> list[Outcome]: ...
