"""Blocks: in force at once where the bus tells, within seconds elsewhere, and never because a wall clock jumped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.background import Background
from service.db.pool import Database
from service.errors import Blocked, Forbidden
from service.keys import blocks
from service.keys.blocks import Blocks, delete_block, upsert_block
from service.settings import load
from service.telemetry.metrics import Metrics
from tests.servers import OwnPostgres
from tests.waiting import eventually

WALL = 1_800_000_000.0


class Door:
    """Blocks over a real database, on clocks that the test moves."""

    def __init__(self, db: Database) -> None:
        self.db, self.now, self.wall = db, 0.0, WALL
        self.blocks = Blocks(db, lambda: self.now, lambda: self.wall)

    async def block(self, user_id: str, seconds: float, reason: str = "") -> None:
        async with self.db.connection("test") as connection:
            await upsert_block(connection, user_id, seconds, reason, "usr_admin")

    async def lift(self, user_id: str) -> bool:
        async with self.db.connection("test") as connection:
            return await delete_block(connection, user_id)

    def left_s(self, user_id: str) -> float:
        """Seconds the user is still kept out; 0 for one who may come in."""
        try:
            self.blocks.check(user_id)
        except Blocked as refusal:
            return refusal.retry_after_s or 0.0
        return 0.0


@asynccontextmanager
async def door(dsn: str) -> AsyncIterator[Door]:
    settings = load(database_url=dsn, db_pool_size=1, db_max_overflow=2, db_timeout=0.5)
    async with Database(settings, Metrics()) as db:
        yield Door(db)


async def test_a_block_is_loaded_and_ends_by_itself(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        await at.blocks.load()
        assert at.left_s("ben") == 0
        assert 59 < at.left_s("ana") <= 60
        at.now = 60.1
        assert at.left_s("ana") == 0


async def test_the_refusal_says_why_and_for_how_long(database_url: str) -> None:
    async with door(database_url) as at:
        at.blocks.heard("ana", WALL + 30, "spam")
        with pytest.raises(Forbidden) as refusal:
            at.blocks.check("ana")
        assert (refusal.value.status, refusal.value.code) == (403, "blocked")
        assert (refusal.value.detail, refusal.value.extra) == ("spam", {"reason": "blocked"})
        assert refusal.value.retry_after_s == 30


async def test_the_latest_word_of_an_administrator_counts(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 3600)
        await at.block("ana", 60)
        await at.blocks.load()
        assert 59 < at.left_s("ana") <= 60


async def test_a_lifted_block_is_gone_and_cannot_be_lifted_again(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        await at.blocks.load()
        assert await at.lift("ana")
        await at.blocks.load()
        assert at.left_s("ana") == 0
        assert not await at.lift("ana")


async def test_a_block_that_has_ended_cannot_be_lifted(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", -1)
        assert not await at.lift("ana")


async def test_what_the_bus_tells_is_believed_at_once(database_url: str) -> None:
    async with door(database_url) as at:
        at.blocks.heard("ana", WALL + 60)
        assert at.left_s("ana") == 60
        at.blocks.heard("ana", 0)
        assert at.left_s("ana") == 0
        at.blocks.heard("ana", WALL - 1)
        assert at.left_s("ana") == 0


async def test_what_is_heard_during_a_load_outlives_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        select_blocks = blocks.select_blocks

        async def slow(connection: blocks.Connection) -> AsyncIterator[tuple[str, float, str]]:
            async for row in select_blocks(connection):
                yield row
            at.blocks.heard("ana", 0)
            at.blocks.heard("ben", WALL + 30)

        with monkeypatch.context() as patch:
            patch.setattr(blocks, "select_blocks", slow)
            await at.blocks.load()
        assert (at.left_s("ana"), at.left_s("ben")) == (0, 30)
        await at.blocks.load()  # the rows have the last word again
        assert at.left_s("ana") > 59
        assert at.left_s("ben") == 0


async def test_a_jump_of_the_wall_clock_lets_nobody_in(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        await at.blocks.load()
        at.wall += 86_400
        assert at.left_s("ana") > 59
        await at.blocks.load()
        assert at.left_s("ana") > 59


async def test_without_postgresql_what_is_known_stays(own_postgres: OwnPostgres) -> None:
    async with door(own_postgres.dsn) as at:
        await at.block("ana", 60)
        await at.blocks.load()
        await own_postgres.kill()
        await at.blocks.load()
        assert at.left_s("ana") > 59


async def test_at_most_so_many_are_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_BLOCKS", 1)
    async with door(database_url) as at:
        at.blocks.heard("ana", WALL + 60)
        at.blocks.heard("ben", WALL + 60)
        assert (at.left_s("ana"), at.left_s("ben")) == (60, 0)


async def test_the_longest_blocks_are_loaded_first(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        await at.block("ben", 120)
        async with at.db.connection("test") as connection:
            assert [user async for user, *_ in blocks.select_blocks(connection, 1)] == ["ben"]


async def test_a_running_node_follows_the_table(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "RELOAD_EVERY_S", 0.05)
    async with door(database_url) as at, Background(Metrics().unhandled.labels("background")) as background:
        background.start("blocks", at.blocks.run)
        await at.block("ana", 60)
        await eventually(lambda: at.left_s("ana") > 0)
        await at.lift("ana")
        await eventually(lambda: at.left_s("ana") == 0)
