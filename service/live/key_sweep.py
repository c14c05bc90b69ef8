"""Closes the sockets of API keys that are no longer good: revoked, expired, or of a user who was made inactive."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog

from service.errors import DatabaseUnavailable
from service.live.hub import Hub

log = structlog.get_logger()

# A revocation is heard of and acted on at once; expiry, and what was missed in an outage, waits for a round.
EVERY_S = 30.0
AGAIN_AFTER_S = 1.0
SUSPECT_S = 5.0  # longer than a handshake takes
KEYS_AT_ONCE = 1000

Ended = Callable[[Collection[bytes]], Awaitable[set[bytes]]]


class KeySweep:
    """`ended` asks PostgreSQL which of some keys are no longer good. `run()` is owned by the composition root."""

    def __init__(self, hub: Hub, ended: Ended) -> None:
        self._hub, self._ended = hub, ended
        self._told = asyncio.Event()
        self._suspects: dict[bytes, float] = {}  # until when to look at them again, by the loop's clock
        self._all = False

    def changed(self, key_hash: bytes | None) -> None:
        """A key changed, or nobody knows which (None): look now, and again while a handshake may be under way."""
        if key_hash is None:
            self._all = True
        else:
            self._suspects[key_hash] = asyncio.get_running_loop().time() + SUSPECT_S
        self._told.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_round = loop.time() + EVERY_S
        while True:
            try:
                async with asyncio.timeout(AGAIN_AFTER_S if self._suspects else EVERY_S):
                    await self._told.wait()
            except TimeoutError:
                pass  # time to look, whether or not anybody said so
            self._told.clear()
            if loop.time() >= next_round:
                self._all, next_round = True, loop.time() + EVERY_S
            whole, self._all = self._all, False  # taken before the look: what is said during it is another one
            try:
                await self._look(whole)
            except DatabaseUnavailable:
                self._all = self._all or whole  # it stays to be done
                await asyncio.sleep(AGAIN_AFTER_S)
                self._told.set()

    async def _look(self, whole: bool) -> None:
        now = asyncio.get_running_loop().time()
        suspects = [key for key in self._suspects if self._hub.places.holds(key)]
        keys = list(self._hub.key_hashes()) if whole else suspects
        for start in range(0, len(keys), KEYS_AT_ONCE):
            ended = await self._ended(keys[start : start + KEYS_AT_ONCE])
            if closed := self._hub.close_keys(ended):
                log.info("sockets.keys_ended", keys=len(ended), sockets=closed)
        self._suspects = {key: until for key, until in self._suspects.items() if until > now}
