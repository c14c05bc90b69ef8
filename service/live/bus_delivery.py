"""Hands messages to this node's sockets: in order, one at a time, each once."""

import asyncio
from collections.abc import Callable

import structlog

from service.live.bus_entries import Deliver, Entry, OnGap, Outgoing, Published, Seq
from service.live.bus_memory import ActedOn, History, LocalSequence
from service.live.messages import AnyMessage, Push
from service.telemetry.metrics import Metrics

log = structlog.get_logger()


class Delivery:
    """`deliver` and `on_gap` must not publish on the same bus: they would wait for themselves."""

    def __init__(self, deliver: Deliver, on_gap: OnGap, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._deliver, self._on_gap, self._clock = deliver, on_gap, clock
        self._messages, self._lag = metrics.bus_messages, metrics.delivery_lag
        self._gaps, self._failures = metrics.bus_gaps, metrics.unhandled.labels("background")
        self._one_at_a_time = asyncio.Lock()
        self._acted = ActedOn()
        self.history = History()
        self.position: Seq | None = None  # all before is handled or known to be lost; None before any place is known
        self.ahead_ms = 0.0  # of the stream's clock over this node's

    def now_ms(self) -> float:
        """The stream's clock."""
        return self._clock() * 1000 + self.ahead_ms

    def begin(self, floor: Seq) -> None:
        """Know nothing of what came up to `floor`, and everything after."""
        self.position = floor
        self.history.begin(floor)

    async def from_stream(self, seq: Seq, message: AnyMessage, live: bool = True) -> None:
        """Act on an entry, unless its message was acted on before; not `live`, only remember it."""
        async with self._one_at_a_time:
            first, local_tick = self._acted.by_stream(message.id)
            self.position = seq
            if not first:
                self._messages.labels("duplicate").inc()
                return
            self._messages.labels("received").inc()
            if isinstance(message, Push):
                self.history.append(seq, message, self.now_ms())
            if live:
                await self._hand(Entry(str(seq), message, local_tick))
                self._lag.labels(message.kind).observe(max(0.0, self.now_ms() - seq.ms) / 1000)

    async def pass_by(self, seq: Seq) -> None:
        """Neither act on an entry nor remember it."""
        async with self._one_at_a_time:
            self.position = seq
            self._messages.labels("received").inc()

    async def alone(self, outgoing: Outgoing) -> None:
        """Deliver a message that Redis has not taken, unless it has meanwhile or this node acted on it before."""
        async with self._one_at_a_time:
            message = outgoing.message
            if outgoing.seq is None and message.id not in self._acted:
                self._acted.alone(message.id, await self._hand(Entry(None, message)))

    async def gap(self, floor: Seq) -> None:
        """Entries up to `floor` may be lost: who was not told by then cannot be told what was missed."""
        async with self._one_at_a_time:
            self._gaps.inc()
            log.warning("bus.gap", position=str(self.position), floor=str(floor))
            self.begin(floor)
            try:
                await self._on_gap()
            except Exception as error:  # a fault of the sockets' side must not stop the bus: logged and counted
                self._failures.inc()
                log.error("bus.deliver_failed", kind="gap", exc_info=error)

    async def _hand(self, entry: Entry) -> int:
        """The tick of the delivery; 0, which is before every socket, when there was none."""
        if isinstance(entry.message, Push) and entry.message.expired():
            return 0
        try:
            return await self._deliver(entry)
        except Exception as error:  # as above
            self._failures.inc()
            log.error("bus.deliver_failed", kind=entry.message.kind, exc_info=error)
            return 0


class ThisNode:
    """The channel while Redis is away."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def publish(self, outgoing: Outgoing) -> Published:
        outgoing.deferred = True
        await self._delivery.alone(outgoing)
        return Published(str(outgoing.seq) if outgoing.seq else None, degraded=outgoing.seq is None)


class OnlyNode:
    """The channel without any Redis: what this node's sockets have is all there will be, in an order they share."""

    def __init__(self, delivery: Delivery, clock: Callable[[], float]) -> None:
        self._delivery, self._sequence = delivery, LocalSequence(clock)
        delivery.begin(self._sequence.last)

    async def publish(self, outgoing: Outgoing) -> Published:
        seq = self._sequence.next()
        await self._delivery.from_stream(seq, outgoing.message)  # its lock is fair: places and deliveries agree
        return Published(str(seq), degraded=True)
