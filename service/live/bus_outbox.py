"""What this node has to say and the stream has not taken yet, and what it said in the last half minute."""

import asyncio
import time
from collections import deque

import structlog

from service.errors import StateUnavailable
from service.live.bus_entries import Outgoing, Published, Seq
from service.live.bus_redis import RedisBusLog
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

PENDING = 10_000
# Messages in one round trip: a few milliseconds of both sides' time.
BATCH = 100
# A stream that comes back from its disk may lack a second, one that fails over a little more.
SAID_S = 30.0
SAID = 1_000
FLUSH_S = 2.0  # of the five seconds that all recovery hooks share


class Outbox:
    """The channel to the stream. Messages leave in the order they came, so that a block and its lifting cannot swap.

    Everybody who publishes at the same time shares a round trip, and its failure: nobody waits for more than the one
    under way and the next.
    """

    def __init__(self, stream: RedisBusLog, metrics: Metrics) -> None:
        self._stream, self._dropped = stream, metrics.bus_messages.labels("dropped")
        self._pending: dict[str, Outgoing] = {}  # by the message's id, oldest first
        self._said: deque[Outgoing] = deque(maxlen=SAID)
        self._sending = asyncio.Lock()
        self._dropping = False

    @property
    def backlog(self) -> bool:
        """Whether more than a round trip waits since an outage; what others publish at this moment is none."""
        return len(self._pending) >= BATCH and next(iter(self._pending.values())).deferred

    def add(self, outgoing: Outgoing) -> Outgoing:
        """Line up, and get back what waits under this id: two cannot. The oldest is dropped when PENDING wait."""
        outgoing = self._pending.setdefault(outgoing.message.id, outgoing)
        while len(self._pending) > PENDING:
            del self._pending[next(iter(self._pending))]
            self._dropped.inc()
            if not self._dropping:  # one line for each outage
                self._dropping = True
                log.error("bus.pending_full", kept=PENDING)
        return outgoing

    async def publish(self, outgoing: Outgoing) -> Published:
        """Send what has lined up, this message with it; raises StateUnavailable, and keeps it."""
        async with self._sending:
            while outgoing.message.id in self._pending and outgoing.failure is None:
                await self._send_batch()
        if outgoing.seq is None:
            raise outgoing.failure or StateUnavailable("bus_publish: dropped")
        return Published(str(outgoing.seq), degraded=False)

    async def flush(self) -> None:
        """Send what waits, for FLUSH_S at most; raises StateUnavailable, what was not sent stays."""
        until_s = time.monotonic() + FLUSH_S
        while self._pending and time.monotonic() < until_s:
            async with self._sending:
                await self._send_batch()

    async def recall(self) -> None:
        """Line up again, before the rest, what this node said in the last SAID_S and the stream has lost.

        The stream is asked, at a hundred messages a round trip. To say everything again would be harmless to nodes,
        which know the ids, but each short outage would push a thousand entries a node through a stream that keeps
        STREAM_LENGTH, and so shorten what a returning client can be told.
        """
        since_s = time.monotonic() - SAID_S
        async with self._sending:
            after = await self._stream.full_from() or Seq(0)  # what made room is not lost, and would push out more
            recent = [said for said in self._said if said.sent_s >= since_s and said.seq and said.seq > after]
            held = await self._held(recent)
            lost = {outgoing.message.id: outgoing for outgoing in recent if outgoing not in held}
            self._said = deque(held, maxlen=SAID)
            self._pending = lost | self._pending
        if lost:
            log.warning("bus.recalled", messages=len(lost))

    async def _held(self, said: list[Outgoing]) -> dict[Outgoing, None]:
        """Those that the stream still has, in order."""
        held: dict[Outgoing, None] = {}
        for start in range(0, len(said), BATCH):
            batch = said[start : start + BATCH]
            answers = await self._stream.holds([(outgoing.seq, outgoing.data) for outgoing in batch if outgoing.seq])
            held |= {outgoing: None for outgoing, holds in zip(batch, answers, strict=True) if holds}
        return held

    async def _send_batch(self) -> None:
        batch = list(self._pending.values())[:BATCH]
        try:
            seqs = await self._stream.append([outgoing.data for outgoing in batch])
        except StateUnavailable as error:
            for outgoing in batch:
                outgoing.failure = error
            raise
        for outgoing, seq in zip(batch, seqs, strict=True):
            outgoing.seq, outgoing.sent_s = seq, time.monotonic()
            self._pending.pop(outgoing.message.id, None)
            self._said.append(outgoing)
        self._dropping = bool(self._pending)
