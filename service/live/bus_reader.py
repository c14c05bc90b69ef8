"""Follows the stream from this node's own place, and notices when what it has not read is gone.

Entries are cut off at the old end only, so while the entry that was read last is still there, none after it is missing.
(XINFO's `max-deleted-entry-id` does not say so: trimming leaves it alone.)
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from service.live.bus_delivery import Delivery
from service.live.bus_entries import Seq
from service.live.bus_memory import KEEP_MS
from service.live.bus_redis import READ_COUNT, RedisBusLog
from service.live.messages import decode, is_push
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

# Clocks drift by milliseconds a minute; a stream that was emptied under a reader is noticed at the same time.
CHECK_EVERY_S = 60.0


class Reader:
    """`look()` waits for entries and has them delivered; `doubt()` makes it first see if the stream is the same."""

    def __init__(
        self,
        stream: RedisBusLog,
        delivery: Delivery,
        recall: Callable[[], Awaitable[None]],
        metrics: Metrics,
        clock: Callable[[], float],
        pushes: bool,
    ) -> None:
        """`recall` has this node say again what the stream has lost. `pushes`: whether they are delivered."""
        self._stream, self._delivery, self._recall, self._clock = stream, delivery, recall, clock
        self._pushes = pushes
        self._malformed = metrics.bus_messages.labels("malformed")
        self._made_ms = clock() * 1000  # on this node's clock; before it there were no sockets here
        self._live_ms = 0.0  # the same on the stream's clock
        self._cursor: Seq | None = None
        self._anchored = False  # the cursor is an entry that was in the stream, and not a moment
        self._checked_s: float | None = None  # on the monotonic clock; None: in doubt

    def doubt(self) -> None:
        self._checked_s = None

    async def look(self) -> None:
        """Deliver the next entries, or nothing within BLOCK_MS. Raises StateUnavailable."""
        if self._cursor is None:
            self._cursor = await self._begin()
        if self._checked_s is None:
            await self._recall()
        if self._checked_s is None or time.monotonic() - self._checked_s > CHECK_EVERY_S:
            self._cursor = await self._check(self._cursor)
        found = await self._stream.read(self._cursor)
        # A full answer is that of a node far behind: the stream may have been cut before this read, or during it.
        if len(found) == READ_COUNT and (checked := await self._check(self._cursor)) != self._cursor:
            self._cursor = checked
            return
        for seq, data in found:
            await self._deliver(seq, data)
            self._cursor, self._anchored = seq, True
            await asyncio.sleep(0)  # a crowd to tell costs milliseconds: others have their turn between two entries

    async def _deliver(self, seq: Seq, data: bytes) -> None:
        if not self._pushes and is_push(data):
            await self._delivery.pass_by(seq)
            return
        message = decode(data)
        if message is None:
            self._malformed.inc()
            log.warning("bus.malformed", seq=str(seq), size_bytes=len(data))
            return
        await self._delivery.from_stream(seq, message, live=seq.ms >= self._live_ms)

    async def _begin(self) -> Seq:
        """Where to read from: five minutes back, so that this node can serve clients of others at once.

        What was said before the node had sockets is remembered and not delivered. The memory is complete after the
        last entry that is not read; without one, from the stream's first, or from now on.
        """
        first = await self._stream.first()  # also opens the connection, so that the clock is not asked through it
        now_ms = await self._measure()
        self._live_ms = self._made_ms + self._delivery.ahead_ms
        start = Seq(max(0, int(min(now_ms - KEEP_MS, self._live_ms))))
        before = await self._stream.last_until(start)
        self._delivery.begin(before or (first.before() if first else Seq(now_ms)))
        self._anchored = before is not None
        self._checked_s = time.monotonic()
        return before or start

    async def _check(self, cursor: Seq) -> Seq:
        """The place to read on from: the cursor, unless the stream is not the one that had it.

        1. The cursor's entry is there: nothing is missing.
        2. All there is came after it: cut off or begun anew; read on, with a gap up to the first.
        3. Otherwise the stream was lost, in part or whole, and a server whose clock is behind may number new entries
           below the cursor: read the last five minutes by its clock again (ids tell what is known), with a gap up to
           now. Not from the very first: orders of long ago, whose ids are forgotten, would be carried out again.
        """
        self._checked_s = time.monotonic()
        now_ms = await self._measure()
        before = await self._stream.last_until(cursor) if self._anchored else cursor
        if before == cursor:
            return cursor
        first = None if before else await self._stream.first()
        await self._delivery.gap(first.before() if first else max(cursor, Seq(now_ms)))
        self._anchored = False
        self.doubt()  # what this node said may be gone as well
        return cursor if first else Seq(max(0, now_ms - KEEP_MS))

    async def _measure(self) -> int:
        """The stream's clock in milliseconds, and how far it is ahead of ours: too little by a round trip at most."""
        now_ms = await self._stream.clock_ms()
        self._delivery.ahead_ms = now_ms - self._clock() * 1000
        return now_ms
