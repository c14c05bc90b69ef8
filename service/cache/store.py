"""The cache as the rest uses it: this node's memory before Redis, and nothing that was flushed."""

from collections.abc import Sequence

from service.cache.clock import SharedClock
from service.cache.entry import CacheStore, Entry
from service.cache.flushes import Flushes
from service.cache.memory import MemoryCache
from service.state.failover import Failover


class Cache:
    """An entry that was read or written is believed from memory until its time ends or it is flushed.

    `stores` has the same memory for when Redis is away. Names are `entry.name_of(kind, digest)`.
    """

    def __init__(
        self,
        stores: Failover[CacheStore],
        memory: MemoryCache,
        flushes: Flushes,
        clock: SharedClock,
        max_entry_bytes: int,
    ) -> None:
        self._stores, self._memory, self._flushes = stores, memory, flushes
        self._max_entry_bytes = max_entry_bytes
        self.clock = clock

    def get_near(self, name: str) -> Entry | None:
        """What this node has in memory: a microsecond, no round trip."""
        entry = self._memory.look(name)
        if entry is not None and self.flushed(entry.groups, entry.begun_ms):
            self._memory.drop(name)
            return None
        return entry

    async def get(self, name: str) -> Entry | None:
        """From memory, else from Redis: a miss while Redis is away."""
        if entry := self.get_near(name):
            return entry
        entry = await self._stores.call(lambda store: store.get(name))
        if entry is None or self.flushed(entry.groups, entry.begun_ms):
            return None
        self._memory.keep(name, entry)
        return entry

    async def get_or_lead(self, name: str, token: str) -> Entry | bool:
        """As `get`; where there is nothing, whether the lead of the call for it is ours now. No entry and no lead for
        one that was flushed."""
        if entry := self.get_near(name):
            return entry
        found = await self._stores.call(lambda store: store.get_or_lead(name, token))
        if isinstance(found, bool):
            return found
        if self.flushed(found.groups, found.begun_ms):
            return False
        self._memory.keep(name, found)
        return found

    async def put(self, name: str, entry: Entry) -> bool:
        """Keep it in memory before the first wait, then in Redis; whether it was kept.

        It is not where it is larger than CACHE_MAX_ENTRY_BYTES, or was flushed since its call began.
        """
        if not self._keep(name, entry):
            return False
        await self._stores.call(lambda store: store.put(name, entry))
        return True

    async def put_and_release(self, name: str, entry: Entry, token: str) -> bool:
        """As `put`, then give the lead up; whether that was done."""
        if not self._keep(name, entry):
            return False
        return not (await self._stores.ask(lambda store: store.put_and_release(name, entry, token))).degraded

    def _keep(self, name: str, entry: Entry) -> bool:
        if len(entry.value) > self._max_entry_bytes or self.flushed(entry.groups, entry.begun_ms):
            return False
        self._memory.keep(name, entry)
        return True

    def flushed(self, groups: Sequence[str], begun_ms: int) -> bool:
        """Whether something begun then may not be served any more."""
        return self._flushes.covers(groups, begun_ms)

    def drop_near(self, name: str) -> None:
        """Forget what this node has in memory: it turned out to be unreadable."""
        self._memory.drop(name)
