"""The recount: counters against what they count, and this node's memory against what Redis holds of it."""

from collections.abc import Callable

from service.presence.redis import RedisPresence
from service.presence.shards import Recount

TRIES = 3


class Audit:
    """A node's audit. Its own sessions' difference counts when seen twice in a row; once, it may be on its way."""

    def __init__(self) -> None:
        self._differed = False

    async def run(self, fleet: RedisPresence, owner: str, own: int | None, idle: Callable[[], bool]) -> int:
        """How far the counters are off. `own` is how many sockets this node has; None while some are on their way."""
        found = await recount(fleet)
        if own is None or not idle():
            self._differed = False
            return found.drift
        difference = abs(found.held[owner] - own)
        confirmed, self._differed = self._differed, difference > 0
        return found.drift + (difference if confirmed else 0)


async def recount(fleet: RedisPresence) -> Recount:
    """Each shard is counted at one moment, the shards one after another; an owner that begins meanwhile would be
    missed, so that the recount is done again. With nodes beginning all the time nothing is found."""
    names = await fleet.leases.names()
    for _ in range(TRIES):
        found = await fleet.recount(names)
        before, names = names, await fleet.leases.names()
        if set(names) <= set(before):
            return found
    return Recount()
