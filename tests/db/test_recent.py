"""The pool lends what came back last."""

from psycopg import AsyncConnection

from service.db.recent import RecentPool


async def pid(connection: AsyncConnection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row
    return int(row[0])


async def test_one_caller_after_the_other_has_the_same_connection_and_two_at_once_have_two(database_url: str) -> None:
    async with RecentPool(database_url, min_size=3, max_size=4) as pool:
        await pool.wait()
        pids = set()
        for _ in range(6):
            async with pool.connection() as connection:
                pids.add(await pid(connection))
        assert len(pids) == 1
        async with pool.connection() as first, pool.connection() as second:
            assert await pid(first) != await pid(second)
