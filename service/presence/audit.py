"""The recount: counters against what they count, and this node's memory against what Redis holds of it."""

from collections.abc import Callable

from service.presence.redis import RedisPresence


class Audit:
    """A node's audit. Its own sessions' difference counts when seen twice in a row; once, it may be on its way."""

    def __init__(self) -> None:
        self._differed = False

    async def run(self, fleet: RedisPresence, owner: str, own: int | None, idle: Callable[[], bool]) -> int:
        """How far the counters are off. `own` is how many sockets this node has; None while some are on their way."""
        found = await fleet.recount()
        if own is None or not idle():
            self._differed = False
            return found.drift
        difference = abs(found.held[owner] - own)
        confirmed, self._differed = self._differed, difference > 0
        return found.drift + (difference if confirmed else 0)
