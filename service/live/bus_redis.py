"""The bus in Redis: one capped stream, `atp:bus`, whose entries have one field `m`, a message as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.live.bus_entries import Seq
from service.state.redis import Client, RedisState
from service.state.scripts import Script

CLOCK = Path(__file__).parent / "lua" / "clock.lua"
STREAM = "atp:bus"
FIELD = "m"
# Five minutes at 33 messages a second; at 16 KB each it is 160 MB at the very most. Trimmed by whole nodes of the
# stream's tree ("~"), which costs next to nothing.
STREAM_LENGTH = 10_000
READ_COUNT = 200
BLOCK_MS = 1000  # what an idle node costs: one command a second


class RedisBusLog:
    """What the bus asks of Redis. `reading` is a client of its own, whose deadline is best longer than BLOCK_MS.

    Every method raises StateUnavailable, or StateRejected for a Redis that answers with an error.
    """

    def __init__(self, redis: RedisState, reading: RedisState) -> None:
        self._redis, self._reading = redis, reading
        self._clock = Script(CLOCK)
        self._block_ms = min(BLOCK_MS, int(reading.timeout_s * 500))  # half a deadline is left for the answer

    async def append(self, batch: Sequence[bytes]) -> list[Seq]:
        """Add messages in order, in one round trip. After a failure any of them may be in the stream."""

        async def add(client: Client) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for data in batch:
                pipeline.xadd(STREAM, {FIELD: data}, maxlen=STREAM_LENGTH, approximate=True)
            return list(await pipeline.execute())

        return [seq_of(found) for found in await self._redis.run("bus_publish", add)]

    async def read(self, after: Seq) -> list[tuple[Seq, bytes]]:
        """The entries after a place, at most READ_COUNT, waiting a second at most for one; b"" lacks our field."""
        found = await self._reading.run(
            "bus_read", lambda r: r.xread({STREAM: str(after)}, count=READ_COUNT, block=self._block_ms)
        )
        return [(seq_of(found_seq), fields.get(FIELD.encode(), b"")) for _, got in found for found_seq, fields in got]

    async def first(self) -> Seq | None:
        """The place of the oldest entry; None for an empty stream."""
        found = await self._redis.run("bus_first", lambda r: r.xrange(STREAM, count=1))
        return seq_of(found[0][0]) if found else None

    async def full_from(self) -> Seq | None:
        """The place of the oldest entry when older ones have made room for newer; None when there was room for all."""
        length = await self._redis.run("bus_length", lambda r: r.xlen(STREAM))
        return await self.first() if length >= STREAM_LENGTH else None

    async def last_until(self, seq: Seq) -> Seq | None:
        """The place of the newest entry at or before `seq`: `seq` itself while the stream still has it."""
        found = await self._redis.run("bus_last_until", lambda r: r.xrevrange(STREAM, max=str(seq), count=1))
        return seq_of(found[0][0]) if found else None

    async def holds(self, sent: Sequence[tuple[Seq, bytes]]) -> list[bool]:
        """Whether the stream has each message in its place, in one round trip."""

        async def look(client: Client) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for seq, _ in sent:
                pipeline.xrange(STREAM, min=str(seq), max=str(seq))
            return list(await pipeline.execute())

        # A stream that began anew may have given the place to another message: the contents decide.
        found = await self._redis.run("bus_holds", look)
        return [
            bool(entries) and entries[0][1].get(FIELD.encode()) == data
            for entries, (_, data) in zip(found, sent, strict=True)
        ]

    async def clock_ms(self) -> int:
        """The server's Unix time in milliseconds, by which it numbers entries."""
        return int(await self._redis.run("bus_clock", lambda r: self._clock.call(r, [STREAM], [])))


def seq_of(found: bytes) -> Seq:
    return Seq.parse(found.decode())
