"""This node's knowledge of the fleet: takes the snapshot when it is its turn, and reads what another has taken."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from service.errors import Unavailable
from service.fleet.store import FRESH_S, Fleet
from service.telemetry.fleet_metrics import Snapshot

log = structlog.get_logger()

LOOK_EVERY_S = 2.0

# Values of some of the catalogue's fleet metrics. Raises Unavailable where what they are read from is away.
Source = Callable[[], Awaitable[Snapshot]]


class Snapshots:
    """`run()` for ever; `current()` at each scrape. `sources` by name: one that is away leaves out its own values."""

    def __init__(
        self,
        fleet: Fleet,
        sources: Mapping[str, Source],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._fleet, self._sources, self._clock, self._wall = fleet, sources, clock, wall
        self._last: Snapshot | None = None
        self._until = 0.0

    def current(self) -> Snapshot | None:
        """The last snapshot, if it is fresh. Any thread may ask."""
        return self._last if self._clock() < self._until else None

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.warning("fleet.unknown", reason=error.detail)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Take one, if it is this node's turn; read the last. Raises StateUnavailable."""
        if await self._fleet.lead():
            await self._fleet.put(await self._take())
        asked = self._clock()
        if found := await self._fleet.get():
            # From when it was asked for: the answer may have been long on its way.
            self._last, self._until = found[0], asked + min(found[1], FRESH_S)

    async def _take(self) -> Snapshot:
        started = self._clock()
        taken: dict[str, list[tuple[list[str], float]]] = {}
        for name, source in self._sources.items():
            try:
                values = await source()
            except Unavailable as error:
                log.warning("fleet.source_away", source=name, reason=error.detail)
                continue
            taken |= {metric: [(list(labels), value) for labels, value in told] for metric, told in values.items()}
        taken["snapshot_timestamp_seconds"] = [([], self._wall())]
        taken["snapshot_duration_seconds"] = [([], self._clock() - started)]
        return taken
