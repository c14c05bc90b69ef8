"""Single flight: all who want the same answer at the same time, on any node, share one call, and read it as it comes.

1. What is in this node's memory is handed out at once: no task, no round trip.
2. Otherwise the first reader begins a task, which those who come later join.
3. The task looks in Redis, and where there is nothing takes the lead, a key with an end (leads.py), in the same script.
4. Where another node holds the lead it waits for the entry, or for the lead to be free, takes it and looks again.
5. What ended well with a final item is stored, unless it was flushed since the call began, and the lead is released.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Generic, Protocol, TypeVar

import structlog

from service.background import end
from service.cache.entry import Entry, Kind, name_of
from service.cache.flight import Flight, Item, Order, Reader, Result, Source
from service.cache.leads import Leads, begun_ms_of
from service.cache.store import Cache
from service.errors import Unavailable
from service.telemetry.operations import recorded

log = structlog.get_logger()

# Between two looks for what another node calls for. Redis costs 0.1 ms each, a model seconds.
POLL_S = 0.05
POLL_SELDOM_S = 0.25
# A lead whose call failed, or gave what is not kept, goes to the next. Nobody waits through more than these.
MOST_LEADERS = 2

Final = TypeVar("Final")


class Codec(Protocol[Final]):
    """How a final item is stored. What `decode` does not understand is a ValueError, and a miss."""

    def encode(self, final: Final) -> bytes: ...

    def decode(self, value: bytes) -> Final: ...


def always(final: object) -> bool:
    """Every final item may be kept."""
    return True


class Flights(Generic[Item]):
    """The calls under way on this node; `close()` ends them. `count` is told of each reader's source.

    `patience_s` is longer than any call takes: nobody waits longer for another node's.
    """

    def __init__(
        self,
        cache: Cache,
        leads: Leads,
        codec: Codec[Item],
        count: Callable[[Kind, Result], None],
        *,
        patience_s: float,
        cacheable: Callable[[Item], bool] = always,
    ) -> None:
        self._cache, self._leads, self._codec, self._cacheable = cache, leads, codec, cacheable
        self.count, self._patience_s = count, patience_s
        self._flying: dict[str, Flight[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self,
        key: str,
        kind: Kind,
        groups: tuple[str, ...],
        ttl_s: float,
        begin: Callable[[], AsyncGenerator[Item, None]],
        *,
        read: bool = True,
        write: bool = True,
    ) -> Reader[Item]:
        """A reader of the answer to `key`, a digest of everything that decides it; see Reader for its use.

        `begin()` yields any number of pieces, then one final item, the whole; it runs in the first reader's context.
        `groups` are the agents whose flush concerns it. Without `read` it is called anew, without `write` it is called
        anew and not stored.
        """
        alone = not (read and write)
        return Reader(Order(kind, key, name_of(kind, key), groups, ttl_s, begin, alone, write), self)

    def known(self, key: str, kind: Kind) -> tuple[Item, Source] | None:
        """The answer, if this node has it in memory: no task, no reader, microseconds."""
        entry = self._cache.get_near(name := name_of(kind, key))
        item = None if entry is None else self._decoded(name, entry)
        if entry is None or item is None:
            return None
        self.count(kind, "hit")
        return item, Source("hit", entry.age_s(self._cache.clock.now_ms()))

    def board(self, order: Order[Item]) -> tuple[Flight[Item], bool]:
        """For readers: the flight to read, and whether it was begun for this one."""
        if order.alone:
            return self._depart(order), True
        now_ms = self._cache.clock.now_ms()
        if near := self._near(order, now_ms):
            return near, True
        flight = self._flying.get(order.name)
        # One that is over and not in memory brought what is not kept.
        if flight and not flight.over and not self._cache.flushed(flight.groups, flight.begun_ms):
            flight.readers += 1
            return flight, False
        flight = self._flying[order.name] = self._depart(order)
        return flight, True

    def leave(self, order: Order[Item], flight: Flight[Item]) -> None:
        """For readers: when none is left before the end, the call is ended."""
        flight.readers -= 1
        if flight.readers <= 0 and not flight.over and flight.task:
            self._forget(order, flight)
            flight.end(Unavailable("Nobody waits for this answer."))
            flight.task.cancel()

    async def close(self) -> None:
        """End every call; readers get Unavailable."""
        await end(*self._tasks)

    def _near(self, order: Order[Item], now_ms: int) -> Flight[Item] | None:
        entry = self._cache.get_near(order.name)
        if entry is None:
            return None
        flight = Flight[Item](entry.groups, entry.begun_ms)
        return flight if self._land(order, flight, entry, "hit", now_ms) else None

    def _land(self, order: Order[Item], flight: Flight[Item], entry: Entry, result: Result, now_ms: int) -> bool:
        item = self._decoded(order.name, entry)
        if item is None:
            return False
        flight.landed(item, Source(result, entry.age_s(now_ms)))
        return True

    def _decoded(self, name: str, entry: Entry) -> Item | None:
        try:
            return self._codec.decode(entry.value)
        except ValueError:  # another version's: the call that follows overwrites it
            log.warning("cache.unreadable", name=name, size_bytes=len(entry.value))
            self._cache.drop_near(name)
            return None

    def _depart(self, order: Order[Item]) -> Flight[Item]:
        flight = Flight[Item](order.groups, self._cache.clock.now_ms())
        flight.readers = 1
        if span := recorded():
            flight.whose = span.get_span_context()
        flight.task = asyncio.create_task(self._fly(order, flight), name="cache-flight")
        self._tasks.add(flight.task)
        flight.task.add_done_callback(partial(self._ended, order, flight))
        return flight

    def _forget(self, order: Order[Item], flight: Flight[Item]) -> None:
        if self._flying.get(order.name) is flight:
            del self._flying[order.name]

    def _ended(self, order: Order[Item], flight: Flight[Item], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._forget(order, flight)
        failure = Unavailable("This node is stopping.") if task.cancelled() else task.exception()
        if flight.over and failure and not task.cancelled():
            log.error("cache.flight_failed_late", name=order.name, exc_info=failure)
        flight.end(failure)

    async def _fly(self, order: Order[Item], flight: Flight[Item]) -> None:
        if order.alone:
            if entry := await self._call(order, flight, "bypass"):
                await self._cache.put(order.name, entry)
            return
        token = self._leads.begin(order.lead, self._cache.clock.now_ms())
        try:
            await self._find_or_call(order, flight, token)
        finally:
            await self._leads.release(token)

    async def _find_or_call(self, order: Order[Item], flight: Flight[Item], token: str) -> None:
        found = await self._cache.get_or_lead(order.name, token)
        if not isinstance(found, bool) and self._arrive(order, flight, found, "hit"):
            self._leads.end(token)
            return
        if found is not True and self._arrive(order, flight, await self._turn(order, flight, token), "shared"):
            return
        entry = await self._call(order, flight, "miss")
        if entry and await self._cache.put_and_release(order.name, entry, token):
            self._leads.end(token)

    def _arrive(self, order: Order[Item], flight: Flight[Item], entry: Entry | None, result: Result) -> bool:
        return entry is not None and self._land(order, flight, entry, result, self._cache.clock.now_ms())

    async def _turn(self, order: Order[Item], flight: Flight[Item], token: str) -> Entry | None:
        """Wait for what another node calls for; None when it is on us to call.

        With the lead in hand the cache is asked once more: the last leader may have stored its answer since.
        """
        loop = asyncio.get_running_loop()
        until_s, pause_s, leaders = loop.time() + self._patience_s, POLL_S, set[str]()
        while holder := await self._leads.take(order.lead, token):
            leaders.add(holder)
            late = flight.over or loop.time() > until_s or len(leaders) > MOST_LEADERS
            if late or self._cache.flushed(order.groups, begun_ms_of(holder)):
                return None
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, POLL_SELDOM_S)
            if entry := await self._cache.get(order.name):
                return entry
        return await self._cache.get(order.name)

    async def _call(self, order: Order[Item], flight: Flight[Item], result: Result) -> Entry | None:
        """Run the call; what it ended with, to be stored.

        Whether anybody still waits is asked too: Python 3.11 may lose the cancellation inside a Redis call (see
        background.end).
        """
        if flight.over:
            return None
        flight.begun_ms = self._cache.clock.now_ms()
        flight.settle(Source(result))
        async with aclosing(order.begin()) as items:
            async for item in items:
                if flight.over:
                    return None
                flight.add(item)
        entry = self._entry(order, flight)
        flight.end()  # who has the whole need not wait for Redis; the cache keeps it here before it waits
        return entry

    def _entry(self, order: Order[Item], flight: Flight[Item]) -> Entry | None:
        if not order.write or not flight.items or not self._cacheable(flight.items[-1]):
            return None
        value, now_ms = self._codec.encode(flight.items[-1]), self._cache.clock.now_ms()
        return Entry(value, order.ttl_s, flight.begun_ms, now_ms, order.groups)
