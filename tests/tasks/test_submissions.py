"""Many submissions of one user at the same time: they wait for one another, and not in other users' way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.db.pool import one_connection
from service.errors import DatabaseUnavailable, TooMany
from service.tasks.user_locks import UserLocks
from tests.nodes import RunningNode, node_settings, running
from tests.routes.test_tasks import ONE, submit
from tests.upstream import Upstream
from tests.waiting import eventually

HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('tasks:' || id, 0)) FROM users WHERE username = 'tester'"
WAITING = "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@asynccontextmanager
async def held(node: RunningNode) -> AsyncIterator[None]:
    """As if a submission of the tester's, on another node, took long."""
    async with one_connection(node.dsn) as connection:
        await connection.execute(HOLD)
        yield


async def test_one_users_many_submissions_do_not_keep_anothers_waiting(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    few = {"db_pool_size": 3, "db_max_overflow": 0, "db_timeout": 10}
    async with running(node_settings(database_url, redis_url, model_server, **few)) as node:
        await node.new_user("lone")
        key = await node.new_key("chat", user="lone")
        async with held(node):
            many = [asyncio.create_task(submit(node)) for _ in range(50)]

            async def one_waits() -> bool:
                return await node.rows(WAITING) == [(1,)]

            await eventually(one_waits)
            async with asyncio.timeout(2):
                lone = await submit(node, ONE, **{"x-api-key": key})
            assert lone.status_code == 202
            assert not any(task.done() for task in many)
        assert [answer.status_code for answer in await asyncio.gather(*many)] == [202] * 50
        per_user = "SELECT count(*)::int, count(DISTINCT turn)::int FROM tasks GROUP BY user_id ORDER BY 1"
        assert await node.rows(per_user) == [(1, 1), (50, 50)]


async def test_a_submission_waits_for_its_users_others_no_longer_than_for_the_database(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, redis_url, model_server, db_timeout=0.5)) as node:
        async with held(node):
            answers = await asyncio.gather(*(submit(node) for _ in range(5)))
        kinds = {(answer.status_code, answer.json()["type"], answer.headers["retry-after"]) for answer in answers}
        # The first had a connection.
        assert kinds == {(429, "urn:atp:problem:too-many", "1"), (503, "urn:atp:problem:unavailable", "1")}
        assert (await submit(node)).status_code == 202


async def test_those_who_wait_enter_one_at_a_time_in_their_order() -> None:
    locks, inside, order = UserLocks(wait_s=5, most_waiting=10), 0, list[int]()

    async def enter(number: int) -> None:
        nonlocal inside
        async with locks.hold("ana"):
            inside += 1
            await asyncio.sleep(0)
            assert inside == 1
            order.append(number)
            inside -= 1

    await asyncio.gather(*(enter(number) for number in range(10)))
    assert order == list(range(10))


async def test_who_waits_too_long_is_refused_and_nobody_else() -> None:
    locks = UserLocks(wait_s=0.05, most_waiting=10)
    async with locks.hold("ana"):
        with pytest.raises(TooMany):
            async with locks.hold("ana"):
                pass
        async with locks.hold("ben"):
            pass
    async with locks.hold("ana"):
        pass


async def test_who_waits_behind_a_dead_database_hears_that_it_is_away() -> None:
    locks = UserLocks(wait_s=0.05, most_waiting=10, up=lambda: False)
    async with locks.hold("ana"):
        with pytest.raises(DatabaseUnavailable):
            async with locks.hold("ana"):
                pass


async def test_only_so_many_wait() -> None:
    locks = UserLocks(wait_s=60, most_waiting=2)

    async def enter() -> None:
        async with locks.hold("ana"):
            pass

    async with locks.hold("ana"):
        waiting = [asyncio.create_task(enter()) for _ in range(3)]
        await eventually(lambda: waiting[2].done())
        assert not waiting[0].done()
        assert not waiting[1].done()
    with pytest.raises(TooMany):
        await waiting[2]
    await asyncio.gather(*waiting[:2])


@pytest.mark.parametrize("woken", [False, True])
async def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next(woken: bool) -> None:
    """`woken`: in the very moment in which it would have entered."""
    locks, entered = UserLocks(wait_s=5, most_waiting=10), asyncio.Event()

    async def enter() -> None:
        async with locks.hold("ana"):
            entered.set()

    async with locks.hold("ana"):
        cancelled, next_one = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
        if not woken:
            cancelled.cancel()
    cancelled.cancel()
    await asyncio.wait_for(next_one, 1)
    assert cancelled.cancelled()
    assert entered.is_set()


async def test_of_users_who_submit_nothing_nothing_is_kept() -> None:
    locks = UserLocks(wait_s=5, most_waiting=10)
    for user in range(100):
        async with locks.hold(f"user {user}"):
            assert len(locks) == 1
    assert len(locks) == 0
