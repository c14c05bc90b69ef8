"""How many streams a key may have at the same time, on all nodes together."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from service.errors import StateRejected, StateUnavailable, TooMany
from service.limits.memory import alone
from service.limits.policies import Caller, subject_of
from service.limits.slot_store import MemorySlots, RedisSlots, SlotStore
from service.state.breaker import Breaker
from service.state.failover import Failover

POLICY = "streams"
# A third of the lease: two renewals may be lost before it ends.
RENEW_EVERY_S = 10.0
# Nobody knows when a stream will end; this is how long a short one lasts.
RETRY_S = 1.0
# What could not be given back; beyond it the lease ends by itself.
MOST_ENDED = 10_000


class Slots:
    """`held` takes a slot for as long as its block lasts; `run()` renews and gives back, owned by the composition root.

    A slot is given back by that loop, not by the block: one that is being cancelled could not wait for Redis. What this
    node holds is always known here, so memory can stand in, and Redis can be told again after an outage.
    """

    def __init__(
        self,
        limit: int,
        shared: RedisSlots | None = None,
        breaker: Breaker | None = None,
        nodes: Callable[[], int] = alone,
        renew_every_s: float = RENEW_EVERY_S,
    ) -> None:
        self._limit, self._shared, self._every_s = limit, shared, renew_every_s
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._ended: defaultdict[str, set[str]] = defaultdict(set)
        self._wake = asyncio.Event()
        self._store = Failover[SlotStore](breaker, shared, MemorySlots(self._held, nodes))

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    @asynccontextmanager
    async def held(self, caller: Caller) -> AsyncIterator[None]:
        """Raises TooMany when the caller's key holds as many as it may."""
        subject, slot, taken = subject_of(caller.key_hash), secrets.token_hex(8), True
        try:
            taken = await self._store.call(lambda store: store.take(subject, slot, self._limit))
            if not taken:
                raise self._full()
            self._held[subject].add(slot)
            yield
        finally:
            if taken:  # or cancelled on the way: Redis may have it
                self._give(subject, slot)

    def _full(self) -> TooMany:
        detail = f"A key may have {self._limit} streams at the same time."
        return TooMany(detail, retry_after_s=RETRY_S, policy=POLICY, limit=self._limit)

    def _give(self, subject: str, slot: str) -> None:
        held = self._held.get(subject)
        if held:
            held.discard(slot)
            if not held:
                del self._held[subject]
        if self._shared and not self._store.degraded and len(self._ended[subject]) < MOST_ENDED:
            self._ended[subject].add(slot)
            self._wake.set()

    async def run(self) -> None:
        """Renew every so often, and give back what has ended as it ends."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._every_s
        while self._shared:
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                pass  # time to renew, also where something always ends: an event that is set never lets a timeout ring
            if loop.time() >= due:
                due = loop.time() + self._every_s
                await self._unless_away(self.renew)
            self._wake.clear()
            await self._unless_away(self._give_back)

    async def renew(self) -> None:
        """Tell Redis of all that is held here; after an outage it may not know. Raises StateUnavailable."""
        if self._shared:
            await self._shared.renew(self._held)

    async def close(self) -> None:
        """Give back what is still held, so that nobody waits for its lease to end."""
        for subject, slots in self._held.items():
            self._ended[subject] |= slots
        await self._unless_away(self._give_back)

    async def _give_back(self) -> None:
        if self._shared and self._ended:
            ended, self._ended = self._ended, defaultdict(set)
            await self._shared.give(ended)  # should it fail, their leases end

    async def _unless_away(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._store.degraded:
            return
        try:
            await work()
        except StateUnavailable as error:
            if isinstance(error, StateRejected):
                self._store.rejected()
