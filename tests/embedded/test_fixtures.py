import socket

import psycopg
import pytest
import redis

from tests.ports import reserve, reserved_port, reserved_row
from tests.servers import OwnPostgres, OwnValkey


async def test_a_database_is_migrated_and_belongs_to_the_test(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("SELECT count(*) > 0 FROM schema_migrations")).fetchone()
        assert row == (True,)
        await connection.execute("CREATE TABLE only_here (i int)")


async def test_a_next_test_sees_nothing_of_it(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("SELECT to_regclass('only_here')")).fetchone()
    assert row == (None,)


async def test_an_empty_database_holds_no_table(empty_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database_url) as connection:
        row = await (await connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).fetchone()
    assert row == (0,)


async def test_redis_is_empty_at_the_start_of_a_test(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    assert await client.dbsize() == 0
    await client.set("left", "behind")
    await client.aclose()


test_redis_is_empty_at_the_start_of_the_next_test_too = test_redis_is_empty_at_the_start_of_a_test


async def test_a_killed_postgres_comes_back_on_its_port_with_its_rows(own_postgres: OwnPostgres) -> None:
    before = own_postgres.dsn
    async with await psycopg.AsyncConnection.connect(before) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS i")
    await own_postgres.kill()
    await own_postgres.restart()
    assert own_postgres.dsn == before
    async with await psycopg.AsyncConnection.connect(before) as connection:
        assert await (await connection.execute("SELECT i FROM kept")).fetchone() == (7,)


async def test_a_frozen_valkey_answers_again_once_thawed(own_valkey: OwnValkey) -> None:
    with redis.Redis.from_url(own_valkey.url, socket_timeout=0.2, retry=None) as client:
        own_valkey.freeze()
        try:
            client.ping()
            raise AssertionError("a frozen server answered")
        except redis.TimeoutError:
            pass
        own_valkey.thaw()
        assert client.ping() is True


def test_a_reserved_port_refuses_until_the_server_that_names_it_listens_and_again_after() -> None:
    with reserved_port() as port:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=1)
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_port_can_be_reserved_once_at_a_time() -> None:
    with reserved_port() as port, socket.socket() as other, pytest.raises(OSError, match="in use"):
        reserve(other, port)


def test_reserved_ports_in_a_row_follow_each_other() -> None:
    with reserved_row(3) as first:
        for port in range(first, first + 3):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                reserve(other, port)
            with socket.create_server(("127.0.0.1", port)):
                pass
