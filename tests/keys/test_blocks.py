"""Blocks: in force at once where the bus tells, within seconds elsewhere, and never because a wall clock jumped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.background import Background
from service.db.pool import Database
from service.errors import Blocked, Forbidden
from service.keys import block_store, blocks
from service.keys.block_store import Kind, Subject, delete_block, upsert_block
from service.keys.block_table import Block, BlockTable, canonical
from service.keys.blocks import Blocks
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

    async def block(self, subject: str, seconds: float, reason: str = "", kind: Kind = "user") -> None:
        async with self.db.connection("test") as connection:
            await upsert_block(connection, Subject(kind, subject), seconds, reason, "usr_admin")

    async def lift(self, user_id: str) -> bool:
        async with self.db.connection("test") as connection:
            return await delete_block(connection, Subject("user", user_id))

    def left_s(self, subject: str, kind: Kind = "user") -> float:
        """Seconds a user (or another kind) is still kept out; 0 for one who may come in."""
        try:
            self.blocks.check(kind, subject)
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
        at.blocks.heard("user", "ana", WALL + 30, "spam")
        with pytest.raises(Forbidden) as refusal:
            at.blocks.check("user", "ana")
        assert (refusal.value.status, refusal.value.code) == (403, "blocked")
        assert (refusal.value.detail, refusal.value.extra) == ("spam", {"reason": "blocked", "blocked": "user"})
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
        at.blocks.heard("user", "ana", WALL + 60)
        assert at.left_s("ana") == 60
        at.blocks.heard("user", "ana", 0)
        assert at.left_s("ana") == 0
        at.blocks.heard("user", "ana", WALL - 1)
        assert at.left_s("ana") == 0


async def test_what_is_heard_during_a_load_outlives_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        select_blocks = block_store.select_blocks

        async def slow(connection: block_store.Connection) -> AsyncIterator[tuple[Subject, float, str]]:
            async for row in select_blocks(connection):
                yield row
            at.blocks.heard("user", "ana", 0)
            at.blocks.heard("user", "ben", WALL + 30)

        with monkeypatch.context() as patch:
            patch.setattr(block_store, "select_blocks", slow)
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
    monkeypatch.setattr(block_store, "MOST_BLOCKS", 1)
    async with door(database_url) as at:
        at.blocks.heard("user", "ana", WALL + 60)
        at.blocks.heard("user", "ben", WALL + 60)
        assert (at.left_s("ana"), at.left_s("ben")) == (60, 0)


async def test_the_longest_blocks_are_loaded_first(database_url: str) -> None:
    async with door(database_url) as at:
        await at.block("ana", 60)
        await at.block("ben", 120)
        async with at.db.connection("test") as connection:
            assert [who async for who, *_ in block_store.select_blocks(connection, 1)] == [Subject("user", "ben")]


async def test_a_running_node_follows_the_table(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "RELOAD_EVERY_S", 0.05)
    async with door(database_url) as at, Background(Metrics().unhandled.labels("background")) as background:
        background.start("blocks", at.blocks.run)
        await at.block("ana", 60)
        await eventually(lambda: at.left_s("ana") > 0)
        await at.lift("ana")
        await eventually(lambda: at.left_s("ana") == 0)


async def test_an_address_is_blocked_by_every_network_around_it_and_by_no_other(database_url: str) -> None:
    async with door(database_url) as at:
        for network in ("192.0.2.0/24", "198.51.100.7", "2001:db8::/32", "10.0.0.0/8"):
            at.blocks.heard("address", network, WALL + 60)
        inside = ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:ffff::1", "10.9.9.9"]
        outside = ["192.0.3.0", "198.51.100.8", "2001:db9::1", "11.0.0.0", "::c000:200", "", "unix:"]
        assert [at.left_s(address, "address") for address in inside] == [60] * 5
        assert [at.left_s(address, "address") for address in outside] == [0] * 7
        at.blocks.heard("address", "192.0.2.0/24", 0)
        assert at.left_s("192.0.2.1", "address") == 0
        assert at.left_s("10.0.0.1", "address") == 60


@pytest.mark.parametrize(
    ("mapped", "short"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::FFFF:c000:200/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.1/128", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::fffe:0:0/96", "::fffe:0:0/96"),
    ],
)
async def test_ipv4_written_as_ipv6_is_blocked_as_ipv4(database_url: str, mapped: str, short: str) -> None:
    async with door(database_url) as at:
        at.blocks.heard("address", canonical(mapped), WALL + 60)
        inside = str(ip_network(short)[0])
        assert (canonical(mapped), at.left_s(inside, "address")) == (short, 60)


@pytest.mark.parametrize("around", ["::/0", "::/1", "::/64", "::fffe:0:0/95"])
def test_a_network_with_all_of_ipv4_in_it_is_refused(around: str) -> None:
    with pytest.raises(ValueError, match=r"less wide.* ::ffff:0:0/96"):
        canonical(around)


async def test_kinds_are_told_apart(database_url: str) -> None:
    async with door(database_url) as at:
        at.blocks.heard("user", "abcd1234", WALL + 60)
        assert (at.left_s("abcd1234"), at.left_s("abcd1234", "key")) == (60, 0)


async def test_who_is_new_in_the_table_is_told(database_url: str) -> None:
    async with door(database_url) as at:
        told: list[tuple[str, str, str]] = []
        at.blocks.on_block = lambda kind, subject, reason: told.append((kind, subject, reason))
        await at.block("192.0.2.1", 60, "scan", kind="address")
        await at.blocks.load()
        await at.blocks.load()
        assert told == [("address", "192.0.2.1", "scan")]


@given(
    st.lists(st.tuples(st.sampled_from([4, 6]), st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20),
    st.lists(st.tuples(st.sampled_from([4, 6]), st.integers(0, 2**32 - 1)), max_size=20),
)
def test_the_table_of_networks_finds_what_a_scan_would(
    networks: list[tuple[int, int, int]], addresses: list[tuple[int, int]]
) -> None:
    table, known = BlockTable(), set()
    for number, (version, address, length) in enumerate(networks):
        network = ip_network((whole(version, address), length if version == 4 else max(1, length)), strict=False)
        who = Subject("address", canonical(str(network)))
        if number % 3 == 2:
            table.drop(who)
            known.discard(network)
        else:
            table.put(who, Block(1.0, ""))
            known.add(network)
    for version, address in addresses:
        place = ip_address(whole(version, address))
        found = {ip_network(who.subject) for who in table.around(str(place))}
        assert found == {network for network in known if place in network}


def whole(version: int, address: int) -> int:
    """Those of IPv6 are in its upper half: what has IPv4 in it is no block."""
    return address if version == 4 else (address | 1 << 31) << 96
