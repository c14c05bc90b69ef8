"""How a revocation reaches the caches of other nodes: a short Redis stream that every node reads from its own place."""

from collections import deque
from typing import Protocol

import structlog

from service.state.redis import RedisState

log = structlog.get_logger()

STREAM = "atp:keys:revoked"
# An entry matters for the second until every node has read it; the rest is kept for looking at.
STREAM_LENGTH = 10_000
READ_COUNT = 1000
HASH_BYTES = 32


class Revocations(Protocol):
    """Where the hash of a key that changed is announced; announcing twice is harmless."""

    async def publish(self, key_hash: bytes) -> None: ...


class RedisRevocations:
    """The fleet's log (XADD, XRANGE, XREVRANGE)."""

    def __init__(self, redis: RedisState) -> None:
        self._redis = redis

    async def publish(self, key_hash: bytes) -> None:
        entry = {"hash": key_hash.hex()}
        await self._redis.run(
            "revocations_publish", lambda r: r.xadd(STREAM, entry, maxlen=STREAM_LENGTH, approximate=True)
        )

    async def end(self) -> str:
        """The id of the newest entry, `0-0` when there is none."""
        newest = await self._redis.run("revocations_end", lambda r: r.xrevrange(STREAM, count=1))
        return newest[0][0].decode() if newest else "0-0"

    async def since(self, cursor: str) -> tuple[str, list[bytes]]:
        """The entries after an id, at most READ_COUNT, and the id to go on from."""
        entries = await self._redis.run(
            "revocations_since", lambda r: r.xrange(STREAM, min=f"({cursor}", count=READ_COUNT)
        )
        hashes = [key_hash for entry, fields in entries if (key_hash := parsed(entry, fields))]
        return (entries[-1][0].decode() if entries else cursor), hashes


def parsed(entry: bytes, fields: dict[bytes, bytes]) -> bytes | None:
    """The key hash of an entry; None, and a line in the log, for one that is not ours: it must not stop the rest."""
    try:
        key_hash = bytes.fromhex(fields[b"hash"].decode())
    except (KeyError, ValueError):
        key_hash = b""
    if len(key_hash) == HASH_BYTES:
        return key_hash
    log.warning("revocations.malformed", entry=entry.decode())
    return None


class MemoryRevocations:
    """What this node could not announce while Redis was away, kept for when it is back."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque(maxlen=STREAM_LENGTH)

    async def publish(self, key_hash: bytes) -> None:
        self._pending.append(key_hash)

    async def republish(self, shared: Revocations) -> None:
        """Hand everything over; what fails half-way stays, to be announced again."""
        while self._pending:
            await shared.publish(self._pending[0])
            self._pending.popleft()
