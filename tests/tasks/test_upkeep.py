"""What workers do beside their tasks: what is over is deleted in time, and a task without a job gets one."""

from datetime import UTC, datetime, timedelta

from service.db.pool import one_connection
from tests.nodes import RunningNode
from tests.routes.test_tasks import ONE, one, submit, until
from tests.tasks.workers import upkeep, working

END = "UPDATE tasks SET status = 'done', finished_at = now() - make_interval(secs => %s) WHERE id = %s"


def tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def end(node: RunningNode, task_id: str, ended_s_ago: float) -> None:
    async with one_connection(node.dsn) as connection:
        await connection.execute(END, (ended_s_ago, task_id))


async def test_a_task_is_kept_for_so_long_after_its_end_and_then_deleted(node: RunningNode) -> None:
    old, young = await one(node), await one(node)
    await one(node)  # it waits
    await end(node, old, ended_s_ago=61)
    await end(node, young, ended_s_ago=59)
    async with upkeep(node.settings, kept_s=60) as work:
        await work.clean_once()
    assert [(await node.http.get(f"/api/v1/tasks/{task_id}")).status_code for task_id in (old, young)] == [404, 200]
    assert await node.rows("SELECT count(*)::int FROM tasks") == [(2,)]


async def test_more_than_one_batch_is_deleted_at_once(node: RunningNode) -> None:
    await submit(node, {"tasks": [ONE] * 1000})
    await node.rows("UPDATE tasks SET status = 'done', finished_at = now() - interval '1 hour' RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.clean_once()
    assert await node.rows("SELECT count(*)::int FROM tasks") == [(0,)]


async def test_an_answer_to_an_idempotency_key_is_kept_for_a_day(node: RunningNode) -> None:
    for key in ("yesterday", "today"):
        await submit(node, ONE, **{"idempotency-key": key})
    await node.rows(
        "UPDATE task_submissions SET created_at = now() - interval '25 hours' WHERE key = 'yesterday' RETURNING key"
    )
    async with upkeep(node.settings, kept_s=60) as work:
        await work.clean_once()
    assert await node.rows("SELECT key FROM task_submissions") == [("today",)]


async def test_an_open_task_that_has_no_job_gets_one_and_is_done(node: RunningNode) -> None:
    task_id = await one(node)
    await node.rows("DELETE FROM procrastinate_jobs RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.clean_once()
        await work.clean_once()
        assert await node.rows("SELECT count(*)::int FROM procrastinate_jobs") == [(1,)]
    async with working(node.settings):
        assert (await until(node, task_id, "done"))["attempts"] == 1


async def test_a_task_that_may_not_start_yet_has_no_job_until_its_moment_has_come(node: RunningNode) -> None:
    task_id = await one(node, not_before=tomorrow())
    async with upkeep(node.settings, kept_s=60) as work:
        await work.clean_once()
        await work.begin_due()
        assert await node.rows("SELECT queueing_lock FROM procrastinate_jobs") == []
        await node.rows("UPDATE tasks SET not_before = now() RETURNING id")
        await work.begin_due()
        await work.begin_due()
    assert await node.rows("SELECT queueing_lock, status::text FROM procrastinate_jobs") == [(task_id, "todo")]


async def test_all_that_are_due_get_their_jobs_at_once(node: RunningNode) -> None:
    later = ONE | {"not_before": tomorrow()}
    await submit(node, {"tasks": [later] * 1000})
    await node.rows("UPDATE tasks SET not_before = now() RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.begin_due()
    assert await node.rows("SELECT count(DISTINCT queueing_lock)::int FROM procrastinate_jobs") == [(1000,)]


async def test_a_scheduled_task_that_an_older_worker_gave_a_job_gets_no_second(node: RunningNode) -> None:
    task_id = await one(node)
    await node.rows("UPDATE tasks SET scheduled = true, not_before = now() RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.begin_due()
        await work.begin_due()
    assert await node.rows("SELECT queueing_lock FROM procrastinate_jobs") == [(task_id,)]
    assert await node.rows("SELECT scheduled FROM tasks") == [(False,)]


async def test_a_cancelled_task_gets_no_job_at_its_moment(node: RunningNode) -> None:
    task_id = await one(node, not_before=tomorrow())
    await node.http.delete(f"/api/v1/tasks/{task_id}")
    await node.rows("UPDATE tasks SET not_before = now() RETURNING id")
    async with upkeep(node.settings, kept_s=60) as work:
        await work.begin_due()
    assert await node.rows("SELECT queueing_lock FROM procrastinate_jobs") == []


async def test_of_dead_workers_jobs_only_open_tasks_are_given_back(node: RunningNode) -> None:
    first, second = await one(node), await one(node)
    await node.rows("UPDATE procrastinate_jobs SET status = 'doing' RETURNING id")  # by a worker that is forgotten
    await end(node, first, ended_s_ago=0)
    async with upkeep(node.settings, kept_s=60) as work:
        await work.give_back()
    assert await node.rows("SELECT queueing_lock, status::text FROM procrastinate_jobs") == [(second, "todo")]
