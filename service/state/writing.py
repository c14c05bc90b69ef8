"""The small write that tells whether Redis takes any: by a script, as nearly all of ours are."""

from pathlib import Path

from service.state.redis import RedisState
from service.state.scripts import Script

KEY = "atp:probe"
KEEP_MS = 1000


class Writing:
    """`check` is the breaker's `write`. In a cluster it asks the one node that has the key."""

    def __init__(self, redis: RedisState) -> None:
        self._redis, self._script = redis, Script(Path(__file__).parent / "lua" / "write.lua")

    async def check(self) -> None:
        """Raises StateRejected when the write is refused, StateUnavailable when nothing is answered."""
        await self._redis.run("probe_write", lambda r: self._script.call(r, [KEY], [KEEP_MS]))
