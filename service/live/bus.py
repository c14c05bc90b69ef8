"""The bus between nodes: every message reaches the sockets of every node once, in one order.

It is one capped Redis stream that each node follows from its own place, so a node that lost Redis for a while misses
nothing, and a client that comes back to any node with the last `seq` it saw gets what it missed in five minutes.
While Redis is away a node delivers to its own sockets at once, and tells the others when Redis is back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from service.errors import StateRejected, StateUnavailable
from service.live.bus_delivery import Delivery, OnlyNode, ThisNode
from service.live.bus_entries import Channel, Deliver, MissedPush, OnGap, Outgoing, Published, Seq
from service.live.bus_outbox import PENDING, Outbox
from service.live.bus_reader import Reader
from service.live.bus_redis import RedisBusLog
from service.live.messages import AnyMessage
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.telemetry.metrics import Metrics

log = structlog.get_logger()

LOOK_AGAIN_S = 0.1
# Between two round trips for what was said; nobody sees a fiftieth of a second.
SPEAK_EVERY_S = 0.02
REJECTED_AGAIN_S = 1.0  # each refusal is a line in the log


async def ignored() -> None:
    """Nobody wants to know of gaps."""


class Bus:
    """`run()` and `speak()` are owned by Background, `recovered` is a hook of the breaker.

    `deliver` gives an entry to the sockets and returns the hub's tick, `on_gap` tells them that something is lost;
    neither may publish here. `clock` gives Unix seconds. For a process without sockets: `pushes` are passed by, and
    `pause_s` is between two looks at the stream, for it need not hear every message at once.
    """

    def __init__(
        self,
        deliver: Deliver,
        shared: RedisBusLog | None,
        breaker: Breaker | None,
        metrics: Metrics,
        *,
        on_gap: OnGap = ignored,
        clock: Callable[[], float] = time.time,
        pause_s: float = 0.0,
        pushes: bool = True,
    ) -> None:
        self._delivery = Delivery(deliver, on_gap, metrics, clock)
        self._published = metrics.bus_messages.labels("published")
        self._pause_s = pause_s
        self._outbox = Outbox(shared, metrics) if shared else None
        self._reader = (
            Reader(shared, self._delivery, self._outbox.recall, metrics, clock, pushes)
            if shared and self._outbox
            else None
        )
        self._here: Channel = ThisNode(self._delivery) if shared else OnlyNode(self._delivery, clock)
        self._channels = Failover[Channel](breaker, self._outbox, self._here)
        self._unsaid: deque[Outgoing] = deque(maxlen=PENDING)
        self._some = asyncio.Event()

    @property
    def position(self) -> str:
        """The seq up to which this node has handled everything; "" before Redis has told of any."""
        return str(self._delivery.position or "")

    @property
    def behind(self) -> bool:
        """Whether what is published now would wait for Redis to come back: no time for what is soon old."""
        return self._channels.degraded or self._backlog

    async def publish(self, message: AnyMessage) -> Published:
        """Say it to every node. Raises ValueError for a message larger than MESSAGE_BYTES."""
        behind = self._backlog
        outgoing = self._lined_up(message)
        if behind:  # what waits since an outage goes first, and not on this caller's time
            return await self._here.publish(outgoing)
        return await self._channels.call(lambda channel: channel.publish(outgoing))

    def say(self, message: AnyMessage) -> None:
        """As `publish`, in the same order, on nobody's time: `speak` tells it within SPEAK_EVERY_S and a round trip.

        A process that dies before does not tell it. Raises ValueError as `publish`.
        """
        self._unsaid.append(self._lined_up(message))
        self._some.set()

    async def speak(self) -> None:
        """Tell what was said for ever: at once, and together what comes within SPEAK_EVERY_S of the last time."""
        while True:
            await self._some.wait()
            await self._speak_out()
            await asyncio.sleep(SPEAK_EVERY_S)

    async def close(self) -> None:
        """Tell the stream what was said until the end."""
        if self._outbox and not self._channels.degraded:
            try:
                await self._outbox.flush()
            except StateUnavailable as error:
                log.warning("bus.flush_failed", reason=str(error))

    async def run(self) -> None:
        """Follow the stream for ever; without Redis there is nothing to follow."""
        while self._reader and self._outbox:
            if self._channels.degraded:
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                await self._turn(self._reader, self._outbox)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)

    async def recovered(self) -> None:
        """Redis is back: say again what it lost, then what it missed. Raises StateUnavailable; the rest is kept."""
        if self._reader and self._outbox:
            self._reader.doubt()
            try:
                await self._outbox.recall()
                await self._outbox.flush()
            except StateRejected as error:  # it answers: no reason for the other capabilities to do without it
                log.warning("bus.flush_failed", reason=str(error))

    def missed(self, last_seq: str) -> list[MissedPush] | None:
        """The pushes after `last_seq`, in order; None when this node cannot tell: too old, lost, or from the future.

        A place that this node has not reached yet gives none: they will come, and some that the client has already
        with them, which their seq tells. Raises BadRequest for what is no seq.
        """
        delivery = self._delivery
        return delivery.history.after(Seq.parse(last_seq), delivery.position, delivery.now_ms())

    @property
    def _backlog(self) -> bool:
        return bool(self._outbox and self._outbox.backlog)

    def _lined_up(self, message: AnyMessage) -> Outgoing:
        outgoing = Outgoing(message)
        self._published.inc()
        return self._outbox.add(outgoing) if self._outbox else outgoing

    async def _speak_out(self) -> None:
        self._some.clear()
        said = [self._unsaid.popleft() for _ in range(len(self._unsaid))]

        async def tell(channel: Channel) -> None:
            for outgoing in said:  # of the stream the first takes the others along
                await channel.publish(outgoing)

        await (tell(self._here) if self._backlog else self._channels.call(tell))

    async def _turn(self, reader: Reader, outbox: Outbox) -> None:
        """One look at the stream, and one attempt at what a failed call left unsaid; neither depends on the other."""
        try:
            await reader.look()
        except StateUnavailable as error:
            await self._look_missed(reader, error)
        if self._unsaid:  # what waits goes with it
            return
        try:
            await outbox.flush()
        except StateUnavailable as error:
            log.warning("bus.flush_failed", reason=str(error))

    async def _look_missed(self, reader: Reader, error: StateUnavailable) -> None:
        reader.doubt()
        log.warning("bus.look_missed", reason=str(error))
        await asyncio.sleep(REJECTED_AGAIN_S if isinstance(error, StateRejected) else LOOK_AGAIN_S)
