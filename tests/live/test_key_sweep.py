"""The sweep of keys: PostgreSQL alone ends a key, and is asked no more than it must."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import psycopg

from service.background import end
from service.db.pool import Database, one_connection
from service.errors import KeyEnded
from service.http.streams import Streams
from service.keys import issuing
from service.keys.revocations import MemoryRevocations, Revocations
from service.keys.store import Standing
from service.keys.verifier import KeyVerifier
from service.live.key_sweep import KeySweep
from service.settings import load
from service.state.failover import Failover
from service.telemetry.metrics import Metrics
from tests.waiting import eventually


class Desk:
    """A sweep over held requests and a real database, on a clock that may jump; `asked` are the questions."""

    def __init__(self, dsn: str, verifier: KeyVerifier) -> None:
        self.dsn, self.verifier, self.streams, self.jump_s = dsn, verifier, Streams(), 0.0
        self.sweep = KeySweep([self.streams], self.ask, lambda: time.monotonic() + self.jump_s)
        self.streams.on_held = self.sweep.held
        self.asked: list[list[bytes]] = []
        self.ended = ""

    async def ask(self, key_hashes: Collection[bytes]) -> dict[bytes, Standing]:
        self.asked.append(list(key_hashes))
        return await self.verifier.standings(key_hashes)

    async def hold(self, key: str) -> None:
        identity = await self.verifier.verify(key)
        with suppress(KeyEnded):
            async with self.streams.held(identity):
                await asyncio.Event().wait()
        self.ended = "ended"

    def end_in(self, key: str, seconds: float | None) -> bytes:
        """Change the row, as a rotation on another node does; the hash to be announced."""
        with psycopg.connect(self.dsn) as connection:
            sql = "UPDATE api_keys SET expires_at = clock_timestamp() + make_interval(secs => %s) WHERE prefix = %s"
            row = connection.execute(f"{sql} RETURNING key_hash", (seconds, key[9:17])).fetchone()
        assert row is not None
        return bytes(row[0])


@asynccontextmanager
async def desk(dsn: str, days: int | None = None) -> AsyncIterator[tuple[Desk, str]]:
    async with one_connection(dsn) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
        key = (await issuing.create_key(connection, "ana", "x", ["read"], days)).text
    async with Database(load(database_url=dsn, db_pool_size=2), Metrics()) as db:
        at = Desk(dsn, KeyVerifier(db, Failover[Revocations](None, None, MemoryRevocations())))
        running, holding = asyncio.create_task(at.sweep.run()), asyncio.create_task(at.hold(key))
        await eventually(lambda: len(at.streams) == 1)
        yield at, key
        await end(running, holding)


async def test_a_clock_that_jumps_past_the_end_of_a_key_ends_nothing(database_url: str) -> None:
    async with desk(database_url, days=1) as (at, _):
        at.jump_s = 2 * 86_400
        at.sweep.changed(b"o" * 32)  # wakes it
        await eventually(lambda: len(at.asked) >= 1)
        at.jump_s = -86_400
        at.sweep.changed(None)
        await eventually(lambda: len(at.asked) >= 2)
        assert at.ended == ""


async def test_an_end_that_is_moved_nearer_is_kept_and_one_moved_away_too(database_url: str) -> None:
    async with desk(database_url, days=1) as (at, key):
        at.sweep.changed(at.end_in(key, 0.4))
        await eventually(lambda: len(at.asked) >= 1)
        at.sweep.changed(at.end_in(key, None))
        await eventually(lambda: len(at.asked) >= 2)
        key_hash = at.end_in(key, 0.3)
        assert at.ended == ""
        at.sweep.changed(key_hash)
        assert await eventually(lambda: at.ended == "ended") < 1.3
        assert len(at.streams) == 0


async def test_an_end_moved_nearer_that_nobody_announced_counts_from_the_next_request_on(database_url: str) -> None:
    async with desk(database_url, days=1) as (at, key):
        await at.verifier.revoked(at.end_in(key, 0.3))  # its memory of the key has ended
        holding = asyncio.create_task(at.hold(key))
        await eventually(lambda: len(at.streams) == 2)
        assert await eventually(lambda: len(at.streams) == 0) < 1.3
        await holding


async def test_an_end_moved_away_that_nobody_announced_closes_nothing_at_the_old_moment(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        await at.verifier.revoked(at.end_in(key, 0.5))
        holding = asyncio.create_task(at.hold(key))
        await eventually(lambda: len(at.streams) == 2)
        key_hash = at.end_in(key, 3600)
        assert at.asked == []
        await eventually(lambda: at.asked == [[key_hash]])
        nearest = at.sweep._deadlines.first
        await eventually(lambda: 3590 < nearest() - time.monotonic() <= 3600)
        assert (len(at.streams), at.ended) == (2, "")
        await end(holding)


async def test_keys_that_hold_nothing_are_not_asked_about(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        for number in range(1000):
            at.sweep.changed(number.to_bytes(32))
        at.sweep.changed(at.end_in(key, 0.0))
        await eventually(lambda: at.ended == "ended")
        assert {key_hash for asked in at.asked for key_hash in asked} == {at.asked[0][0]}


async def test_an_expired_key_that_is_slow_to_let_go_is_not_asked_about_all_the_time(database_url: str) -> None:
    async with desk(database_url) as (at, key):
        key_hash, release = at.end_in(key, 0.2), asyncio.Event()
        identity = await at.verifier.verify_hash(key_hash)

        async def stubborn() -> None:
            with suppress(KeyEnded):
                async with at.streams.held(identity):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await release.wait()

        holding = asyncio.create_task(stubborn())
        at.sweep.changed(key_hash)
        await eventually(lambda: at.ended == "ended")
        before = len(at.asked)
        await asyncio.sleep(0.3)
        assert len(at.asked) - before <= 1
        release.set()
        await holding


async def test_a_flood_is_remembered_only_so_far(database_url: str) -> None:
    async with desk(database_url) as (at, _):
        for number in range(60_000):
            at.sweep.changed(number.to_bytes(32))
        assert len(at.sweep._suspects) == 50_000
