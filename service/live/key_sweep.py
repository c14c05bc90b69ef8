"""Ends what API keys hold open once they are no longer good: revoked, expired, or of a user who was made inactive.

1. A change that is heard is looked up at once, and again while a request that began before it may be under way.
2. A key that expires is looked up at its moment, counted on the monotonic clock; only PostgreSQL, asked then, ends it,
   so a clock that jumps or drifts ends nothing.
3. Every EVERY_S all keys held are looked up, whatever was heard.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

import structlog

from service.background import Ran, unwatched
from service.errors import DatabaseUnavailable
from service.live.deadlines import Deadlines

log = structlog.get_logger()

EVERY_S = 30.0
AGAIN_AFTER_S = 1.0
# Longer than a handshake takes, or a request's body (15 s): a key is verified before, and holds something after.
SUSPECT_S = 20.0
MOST_SUSPECTS = 50_000
KEYS_AT_ONCE = 1000


class Standing(Protocol):
    """`reason`: why a key is no longer good, or empty. `left_s`: until it expires; None: it does not."""

    @property
    def reason(self) -> str: ...

    @property
    def left_s(self) -> float | None: ...


Ask = Callable[[Collection[bytes]], Awaitable[Mapping[bytes, Standing]]]


class Holder(Protocol):
    """What keys hold open on this node, by their hashes. It tells the sweep's `held` of each key that it takes in."""

    def key_hashes(self) -> Collection[bytes]: ...

    def holds(self, key_hash: bytes) -> bool: ...

    def close_keys(self, ended: Mapping[bytes, str]) -> int:
        """End all that these keys hold, each for its reason; how much there was."""
        ...


class KeySweep:
    """`ask` says how PostgreSQL sees some keys; `ran` hears of each look at all. `run()` is owned by the composition
    root."""

    def __init__(
        self,
        holders: Sequence[Holder],
        ask: Ask,
        clock: Callable[[], float] = time.monotonic,
        ran: Ran = unwatched,
    ) -> None:
        self._holders, self._ask, self._clock, self._ran = holders, ask, clock, ran
        self._told = asyncio.Event()
        self._fresh: set[bytes] = set()  # changed since the last look
        self._suspects: dict[bytes, float] = {}  # until when to look at them again
        self._deadlines = Deadlines()
        self._all = False

    def changed(self, key_hash: bytes | None) -> None:
        """A key changed, or nobody knows which (None): look now, and again for a while."""
        if key_hash is None:
            self._all = True
        else:
            self._fresh.add(key_hash)
            self._suspect(key_hash)
        self._told.set()

    def _suspect(self, key_hash: bytes) -> None:
        self._suspects[key_hash] = self._clock() + SUSPECT_S
        if len(self._suspects) > MOST_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]  # the oldest; the next round finds what it holds

    def held(self, key_hash: bytes, ends_at: float | None) -> None:
        """A key holds something more; it expires at `ends_at` on the monotonic clock, None: never."""
        if ends_at is not None and self._deadlines.add(key_hash, ends_at):
            self._told.set()  # it is the first of all to end: the loop sleeps too long

    async def run(self) -> None:
        next_round, next_again = self._clock() + EVERY_S, 0.0
        while True:
            again_at = next_again if self._suspects else next_round
            await self._sleep(min(next_round, again_at, self._deadlines.first()))
            now = self._clock()
            if now >= next_round:
                self._all, next_round = True, now + EVERY_S
            again = now >= next_again
            next_again = now + AGAIN_AFTER_S if again else next_again
            if not await self._look(again):
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _sleep(self, until: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._told.wait()
        except TimeoutError:
            pass  # time to look, whether or not anybody said so
        self._told.clear()

    async def _look(self, again: bool) -> bool:
        """Look up who is due; False when PostgreSQL could not be asked, and all of it stays to be done."""
        now = self._clock()
        whole, self._all = self._all, False  # taken before the look: what is said during it is another one
        fresh, self._fresh = self._fresh, set()
        due = self._deadlines.due(now)
        asked = fresh.union(due, self._suspects if again else ())
        try:
            await self._judge(self._held_keys() if whole else [key for key in asked if self._holds(key)])
        except DatabaseUnavailable:
            self._all, self._fresh = self._all or whole, self._fresh.union(filter(self._holds, fresh))
            for key_hash in due:
                self._deadlines.add(key_hash, now)
            self._told.set()
            return False
        if whole:
            self._deadlines.keep(self._holds)
            self._ran()
        if again:
            self._suspects = {key: until for key, until in self._suspects.items() if until > now}
        return True

    async def _judge(self, keys: list[bytes]) -> None:
        for start in range(0, len(keys), KEYS_AT_ONCE):
            now = self._clock()
            standings = await self._ask(keys[start : start + KEYS_AT_ONCE])
            for key_hash, standing in standings.items():
                left_s = None if standing.reason else standing.left_s  # one that has ended is not due again
                self._deadlines.move(key_hash, None if left_s is None else now + left_s)
            ended = {key_hash: standing.reason for key_hash, standing in standings.items() if standing.reason}
            if cut := sum(holder.close_keys(ended) for holder in self._holders if ended):
                log.info("keys.ended", keys=len(ended), cut=cut)

    def _held_keys(self) -> list[bytes]:
        return list(set[bytes]().union(*(holder.key_hashes() for holder in self._holders)))

    def _holds(self, key_hash: bytes) -> bool:
        return any(holder.holds(key_hash) for holder in self._holders)
