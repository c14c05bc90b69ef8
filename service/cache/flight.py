"""One call that several readers share: what it has brought so far, and a reader's place in it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Protocol, TypeVar

from opentelemetry.trace import SpanContext

from service.cache.entry import Kind
from service.cache.leads import lead_of
from service.telemetry.operations import UNSEEN, Wait, wait_for

Item = TypeVar("Item")
Result = Literal["hit", "miss", "shared", "bypass"]
RESULTS: tuple[Result, ...] = ("hit", "miss", "shared", "bypass")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an answer comes from, and how old it is.

    `hit`: the cache; `miss`: a call for this reader; `shared`: one that another reader or node had begun;
    `bypass`: a call of its own, because the reader asked for that.
    """

    result: Result
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Order(Generic[Item]):
    """What a reader wants, and how to get it where the cache has none."""

    kind: Kind
    key: str
    name: str
    groups: tuple[str, ...]
    ttl_s: float
    begin: Callable[[], AsyncGenerator[Item, None]]
    alone: bool = False  # neither read nor shared
    write: bool = True

    @property
    def lead(self) -> str:
        return lead_of(self.name)


class Flight(Generic[Item]):
    """Items in order, appended by one task and read by many, each at its own speed.

    What it may hold is bounded by what the call yields.
    """

    def __init__(self, groups: tuple[str, ...], begun_ms: int) -> None:
        self.groups, self.begun_ms = groups, begun_ms
        self.items: list[Item] = []
        self.readers = 0
        self.source: Source | None = None  # as the first reader has it; None: not known yet
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self.boarded = 0
        self.whose: SpanContext | None = None  # the span of the first reader, where it is recorded
        self.payer = 0  # the number of the reader whose the cost of the call is; 0: nobody's yet
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._changed: asyncio.Event | None = None

    def settle(self, source: Source) -> None:
        self.source = source
        self._wake()

    def add(self, item: Item) -> None:
        self.items.append(item)
        self._wake()

    def end(self, failure: BaseException | None = None) -> None:
        """No item comes any more; a failure is for every reader, after the items."""
        if not self.over:
            self.over, self._failure = True, failure
            self._traceback = failure.__traceback__ if failure else None
            self._wake()

    def raise_failure(self) -> None:
        """Each reader adds its own frames to the same exception, so its traceback is reset for each."""
        if self._failure:
            raise self._failure.with_traceback(self._traceback)

    @property
    def failed(self) -> bool:
        return self._failure is not None

    async def change(self) -> None:
        """Wait for whatever happens next."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None

    def landed(self, item: Item, source: Source) -> "Flight[Item]":
        """The whole answer is here already."""
        self.items, self.source, self.over = [item], source, True
        self._wake()
        return self


class Boarding(Protocol[Item]):
    """What a reader asks of the flights."""

    def board(self, order: Order[Item]) -> tuple[Flight[Item], bool]:
        """A flight, and whether it was begun for this reader."""
        ...

    def leave(self, order: Order[Item], flight: Flight[Item]) -> None: ...

    def count(self, kind: Kind, result: Result) -> None: ...


class Reader(Generic[Item]):
    """`async with flights.open(…) as reader:` knows `reader.source`, then `async for item in reader`, to the end.

    A hit, and what another node's call brought, has the final item alone. An exception of the call is raised after
    the items it gave. Leaving before the end is no fault; when nobody reads any more the call is ended.
    """

    source: Source
    _flight: Flight[Item]

    def __init__(self, order: Order[Item], flights: Boarding[Item]) -> None:
        self._order, self._flights = order, flights
        self._read = 0
        self._settled = False
        self._wait: Wait = UNSEEN

    async def __aenter__(self) -> "Reader[Item]":
        self._flight, first = self._flights.board(self._order)
        self._flight.boarded += 1
        self._number = self._flight.boarded
        if first:
            self._flight.payer = self._number
        else:
            self._wait = wait_for("answer", self._flight.whose)
        try:
            while self._flight.source is None and not self._flight.over:
                await self._flight.change()
        except asyncio.CancelledError:
            self._leave()
            raise
        self.source = self._flight.source or Source("miss")
        if self.source.result == "miss" and not first:
            self.source = Source("shared")
        self._flights.count(self._order.kind, self.source.result)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._wait.end()
        self._flights.leave(self._order, self._flight)
        if self._flight.payer == self._number and not self._settled and not self._flight.over:
            self._flight.payer = 0  # whoever reads it to the end pays it whole

    def pays(self) -> bool:
        """Whether the cost of the call is this reader's: it began it, or whoever did has left before the end."""
        self._settled = True
        self._flight.payer = self._flight.payer or self._number
        return self._flight.payer == self._number

    def left_unpaid(self) -> tuple[bool, Item | None]:
        """After leaving early: whether the cost is this reader's, and the final item where the call had ended well."""
        if self._settled or self._flight.payer != self._number:
            return False, None
        whole = self._flight.over and not self._flight.failed and self._flight.items
        return True, self._flight.items[-1] if whole else None

    def __aiter__(self) -> "Reader[Item]":
        return self

    async def __anext__(self) -> Item:
        flight = self._flight
        while self._read >= len(flight.items):
            if flight.over:
                flight.raise_failure()
                raise StopAsyncIteration
            await flight.change()
        self._read += 1
        return flight.items[self._read - 1]

    async def final(self) -> Item:
        """The last item, once all have come. Raises what the call raised, and EOFError where it gave none."""
        while not self._flight.over:
            await self._flight.change()
        self._flight.raise_failure()
        if not self._flight.items:
            raise EOFError("the call ended without an item")
        return self._flight.items[-1]
