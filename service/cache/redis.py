"""The cache of all nodes: one Redis string an entry, `atp:cache:<kind>:<sha256>`, which Redis ends by itself."""

import structlog

from service.cache.clock import SharedClock
from service.cache.entry import Entry, pack, unpack
from service.state.pipeline import Pipeline

log = structlog.get_logger()

SAY_AGAIN_S = 60.0  # a broken writer would say it at every request


class RedisCache:
    """Implements CacheStore (GET; SET with PX, https://redis.io/docs/latest/commands/set/)."""

    def __init__(self, redis: Pipeline, clock: SharedClock) -> None:
        self._redis, self._clock = redis, clock
        self._quiet_until_s = 0.0

    async def get(self, name: str) -> Entry | None:
        """None as well for bytes that are torn, foreign or of another entry."""
        data = await self._redis.run(lambda p: p.get(name))
        if data is None:
            return None
        entry = unpack(name, data)
        if entry is None:
            self._say_torn(name, len(data))
        return entry

    async def put(self, name: str, entry: Entry) -> None:
        data, ttl_ms = pack(name, entry), max(1, int(entry.ttl_s * 1000))
        await self._redis.run(lambda p: p.set(name, data, px=ttl_ms))

    def _say_torn(self, name: str, size_bytes: int) -> None:
        if self._clock.monotonic() >= self._quiet_until_s:
            self._quiet_until_s = self._clock.monotonic() + SAY_AGAIN_S
            log.warning("cache.torn", name=name, size_bytes=size_bytes)
