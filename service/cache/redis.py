"""The cache of all nodes: one Redis string an entry, `atp:cache:<kind>:<sha256>`, which Redis ends by itself."""

import structlog

from service.cache import leads
from service.cache.clock import SharedClock
from service.cache.entry import Entry, pack, unpack
from service.state.pipeline import Pipeline

log = structlog.get_logger()

SAY_AGAIN_S = 60.0  # a broken writer would say it at every request


class RedisCache:
    """Implements CacheStore (GET; SET with PX, https://redis.io/docs/latest/commands/set/).

    The scripts go as text, as those of leads.py.
    """

    def __init__(self, redis: Pipeline, clock: SharedClock) -> None:
        self._redis, self._clock = redis, clock
        self._get_or_lead = (leads.SCRIPTS / "get_or_lead.lua").read_text()
        self._put_and_release = (leads.SCRIPTS / "put_and_release.lua").read_text()
        self._quiet_until_s = 0.0

    async def get(self, name: str) -> Entry | None:
        """None as well for bytes that are torn, foreign or of another entry."""
        data = await self._redis.run(lambda p: p.get(name))
        return None if data is None else self._unpacked(name, data)

    async def put(self, name: str, entry: Entry) -> None:
        data, ttl_ms = pack(name, entry), kept_ms(entry)
        await self._redis.run(lambda p: p.set(name, data, px=ttl_ms))

    async def get_or_lead(self, name: str, token: str) -> Entry | bool:
        keys, given = (name, leads.lead_of(name)), (token, leads.LEAD_MS)
        found = await self._redis.run(lambda p: p.eval(self._get_or_lead, 2, *keys, *given))
        return bool(found) if isinstance(found, int) else self._unpacked(name, found) or False

    async def put_and_release(self, name: str, entry: Entry, token: str) -> None:
        keys, given = (name, leads.lead_of(name)), (pack(name, entry), kept_ms(entry), token)
        await self._redis.run(lambda p: p.eval(self._put_and_release, 2, *keys, *given))

    def _unpacked(self, name: str, data: bytes) -> Entry | None:
        entry = unpack(name, data)
        if entry is None:
            self._say_torn(name, len(data))
        return entry

    def _say_torn(self, name: str, size_bytes: int) -> None:
        if self._clock.monotonic() >= self._quiet_until_s:
            self._quiet_until_s = self._clock.monotonic() + SAY_AGAIN_S
            log.warning("cache.torn", name=name, size_bytes=size_bytes)


def kept_ms(entry: Entry) -> int:
    return max(1, int(entry.ttl_s * 1000))
