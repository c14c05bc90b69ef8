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
KEYS_AT_ONCE = 1000

Ended = Callable[[Collection[bytes]], Awaitable[set[bytes]]]


class KeySweep:
    """`ended` asks PostgreSQL which of some keys are no longer good. `run()` is owned by the composition root."""

    def __init__(self, hub: Hub, ended: Ended) -> None:
        self._hub, self._ended = hub, ended
        self._changed = asyncio.Event()

    def changed(self, key_hash: bytes | None) -> None:
        """A key changed, or nobody knows which (None): look now."""
        if key_hash is None or key_hash in self._hub.key_hashes():
            self._changed.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                pass  # a round
            self._changed.clear()
            try:
                await self._look()
            except DatabaseUnavailable:
                self._changed.set()  # it stays to be done
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _look(self) -> None:
        keys = list(self._hub.key_hashes())
        for start in range(0, len(keys), KEYS_AT_ONCE):
            ended = await self._ended(keys[start : start + KEYS_AT_ONCE])
            if closed := self._hub.close_keys(ended):
                log.info("sockets.keys_ended", keys=len(ended), sockets=closed)
