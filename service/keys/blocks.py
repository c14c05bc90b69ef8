"""Keys, users and addresses that are kept out until a time, known by heart.

PostgreSQL has the truth and is read every RELOAD_EVERY_S; the bus tells of a change at once. How long a block still
lasts is computed by PostgreSQL and kept on the monotonic clock, so that a jump of a node's wall clock lets nobody in.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from service.background import Ran, unwatched
from service.db.pool import Database
from service.errors import Blocked, DatabaseUnavailable
from service.keys import block_store
from service.keys.block_store import BlockRow, Kind, Subject
from service.keys.block_table import Block, BlockTable

log = structlog.get_logger()

RELOAD_EVERY_S = 5.0


def unheard(kind: Kind, subject: str, reason: str) -> None:
    """Nobody asked to be told of those who are blocked now and were not before."""


class Blocks:
    """Who is kept out; `run()` follows PostgreSQL and is owned by the composition root."""

    def __init__(
        self,
        db: Database,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ran: Ran = unwatched,
    ) -> None:
        self._db, self._clock, self._wall, self._ran = db, clock, wall, ran
        self._table = BlockTable()
        self.on_block: Callable[[Kind, str, str], None] = unheard
        self._heard: dict[Subject, Block | None] = {}  # since the load under way began; None: lifted

    def check(self, kind: Kind, subject: str) -> None:
        """Raises Blocked, with the seconds that are left. An address is in the networks around it, too."""
        if not len(self._table):
            return
        if kind == "address":
            for network in self._table.around(subject):
                self._check(network)
        else:
            self._check(Subject(kind, subject))

    def _check(self, who: Subject) -> None:
        block = self._table.get(who)
        left_s = block.deadline - self._clock() if block else 0
        if block and left_s > 0:
            detail = block.reason or f"This {who.kind} is blocked."
            raise Blocked(detail, retry_after_s=left_s, reason="blocked", blocked=who.kind)

    def heard(self, kind: Kind, subject: str, until_s: float, reason: str = "") -> None:
        """Believe the bus at once: blocked until `until_s` (Unix seconds), or no longer when that is past or 0.

        Two machines' wall clocks may differ; the next load puts right what that makes of the time left.
        """
        left_s, who = until_s - self._wall(), Subject(kind, subject)
        block = Block(self._clock() + left_s, reason) if left_s > 0 else None
        self._set(who, block)
        self._heard[who] = block

    def _set(self, who: Subject, block: Block | None) -> None:
        if block is None:
            self._table.drop(who)
        elif who in self._table or len(self._table) < block_store.MOST_BLOCKS:
            self._table.put(who, block)

    async def run(self) -> None:
        """Load for ever."""
        while True:
            await self.load()
            await asyncio.sleep(RELOAD_EVERY_S)

    async def load(self) -> None:
        """Take over what PostgreSQL says; while it is away, what is known stays."""
        self._heard = {}
        try:
            table = await self._read()
        except DatabaseUnavailable:
            return
        before, self._table = self._table, table
        for who in set(table) - set(before):
            block = table.get(who)
            self.on_block(who.kind, who.subject, block.reason if block else "")
        for who, block in self._heard.items():  # the rows may have been read before these
            self._set(who, block)
        self._ran()

    async def page(self, after: tuple[str, str], limit: int) -> list[BlockRow]:
        """Blocks in force behind (kind, subject), as PostgreSQL has them; raises DatabaseUnavailable."""
        async with self._db.connection("select_block_page") as connection:
            return await block_store.select_page(connection, after, limit)

    async def _read(self) -> BlockTable:
        table = BlockTable()
        async with self._db.connection("select_blocks") as connection:
            asked = self._clock()  # before the question: nobody is kept out longer than was said
            async for who, left_s, reason in block_store.select_blocks(connection):
                table.put(who, Block(asked + left_s, reason))
        if len(table) == block_store.MOST_BLOCKS:
            log.warning("blocks.too_many", loaded=len(table))
        return table
