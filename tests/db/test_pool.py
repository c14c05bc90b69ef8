"""The pool through outages: bounded waits, and a server that is back is used at once."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.db import pool
from service.db.pool import Database
from service.errors import DatabaseUnavailable
from service.settings import load
from service.telemetry.metrics import Metrics
from tests.servers import OwnPostgres
from tests.waiting import eventually


@pytest.fixture
async def open_database() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def start(dsn: str, timeout_s: float = 0.5) -> Database:
            settings = load(database_url=dsn, db_pool_size=2, db_max_overflow=2, db_timeout=timeout_s)
            return await stack.enter_async_context(Database(settings, Metrics()))

        yield start


async def one(db: Database, sql: bytes = b"SELECT 1") -> Any:
    async with db.connection("test") as connection:
        return await (await connection.execute(sql)).fetchone()


async def test_a_block_commits_and_an_exception_rolls_back(
    database_url: str, open_database: Callable[..., Any]
) -> None:
    db = await open_database(database_url)
    async with db.connection("create") as connection:
        await connection.execute("CREATE TABLE t (n int)")

    async def insert_and_fail() -> None:
        async with db.connection("insert") as connection:
            await connection.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await insert_and_fail()
    assert await one(db, b"SELECT count(*) FROM t") == (0,)


async def test_a_statement_over_the_deadline_is_cut(database_url: str, open_database: Callable[..., Any]) -> None:
    db = await open_database(database_url)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await one(db, b"SELECT pg_sleep(30)")
    assert time.monotonic() - started < 1.5
    assert await one(db) == (1,)


async def test_a_frozen_server_holds_nobody_and_is_used_when_it_thaws(
    own_postgres: OwnPostgres, open_database: Callable[..., Any]
) -> None:
    db = await open_database(own_postgres.dsn)
    await one(db)
    own_postgres.freeze()
    started = time.monotonic()
    results = await asyncio.gather(*(one(db) for _ in range(20)), return_exceptions=True)
    assert time.monotonic() - started < 2.0
    assert {type(result) for result in results} == {DatabaseUnavailable}
    await eventually(lambda: not db.up)
    own_postgres.thaw()
    assert await eventually(lambda: db.up) < 5
    assert await one(db) == (1,)


async def test_a_server_that_was_gone_for_seconds_is_used_within_five(
    own_postgres: OwnPostgres, open_database: Callable[..., Any]
) -> None:
    db = await open_database(own_postgres.dsn)
    await one(db)
    await own_postgres.kill()
    await eventually(lambda: not db.up)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await one(db)
    assert time.monotonic() - started < 0.1  # known to be away: nobody queues
    await own_postgres.restart()
    assert await eventually(lambda: db.up) < 5
    assert await one(db) == (1,)


async def test_one_slow_look_is_no_outage(
    database_url: str, open_database: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = pool.AsyncConnection.connect
    slow = [True]

    async def connect_slowly(*arguments: Any, **options: Any) -> Any:
        if slow and options.get("application_name") == "atp-watch":
            slow.pop()
            raise TimeoutError
        return await connect(*arguments, **options)

    db = await open_database(database_url)
    monkeypatch.setattr(pool.AsyncConnection, "connect", connect_slowly)
    await eventually(lambda: not slow)
    for _ in range(20):
        assert db.up
        await asyncio.sleep(0.01)


async def test_a_full_pool_says_so_in_time(database_url: str, open_database: Callable[..., Any]) -> None:
    db = await open_database(database_url, timeout_s=0.4)

    async def hold() -> None:
        async with db.connection("hold"):
            await asyncio.sleep(0.35)

    holders = [asyncio.create_task(hold()) for _ in range(4)]
    await asyncio.sleep(0.1)
    assert await one(db) == (1,)
    await asyncio.gather(*holders)


async def test_closed_while_it_connects_it_leaves_no_connection_to_the_collector() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()  # to the end
        ended.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        settings = load(database_url=f"postgresql://a@127.0.0.1:{port}/a?sslmode=disable")
        only_the_watch = settings.model_copy(update={"db_pool_size": 0})
        gc.disable()
        try:
            async with Database(only_the_watch, Metrics()):
                await begun.wait()
            await eventually(ended.is_set)
        finally:
            gc.enable()
