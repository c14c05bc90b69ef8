"""When periodic work last came to its end: every process says so of what it does, and of nothing else."""

import time

import pytest
from prometheus_client import generate_latest

from service.telemetry.labels import PERIODIC
from service.telemetry.metrics import Metrics
from service.wiring import open_node
from tests.nodes import RunningNode, node_settings, running, spooling
from tests.tasks.workers import working
from tests.upstream import Upstream
from tests.waiting import eventually

SERIES = "atp_task_last_success_timestamp_seconds"


def moments(metrics: Metrics) -> dict[str, float]:
    """By their work, as a process exports them."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith(SERIES + "{")]
    return {name.split('"')[1]: float(value) for name, _, value in found}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done every 30 s is done at once."""
    monkeypatch.setattr("service.live.key_sweep.EVERY_S", 0.2)
    monkeypatch.setattr("service.presence.tracker.AUDIT_EVERY_S", 0.2)
    monkeypatch.setattr("service.presence.tracker.BEAT_S", 0.2)


async def test_a_node_that_runs_tasks_does_all_of_it(
    hurried: None, database_url: str, redis_url: str, model_server: Upstream
) -> None:
    started = time.time()
    async with running(node_settings(database_url, redis_url, model_server, node_tasks=1)) as node:

        def all_done() -> bool:
            return {work for work, at in moments(node.parts.metrics).items() if at >= started} == set(PERIODIC)

        await eventually(all_done, within_s=10)


async def test_a_worker_mends_tasks_and_keeps_the_months_of_usage(node: RunningNode) -> None:
    async with working(node.settings) as parts:
        await eventually(lambda: all(moments(parts.metrics).values()))
        of_workers = {"blocks", "task-cleaning", "task-recovery", "task-schedule", "usage-partitions", "usage-replay"}
        assert set(moments(parts.metrics)) == of_workers


async def test_without_redis_nobody_is_counted_and_what_never_succeeded_is_at_0(model_server: Upstream) -> None:
    settings = node_settings("postgresql://nobody@127.0.0.1:1/atp", "", model_server)
    async with spooling(settings) as settings, open_node(settings) as node:
        await eventually(lambda: moments(node.metrics)["usage-replay"] > 0)  # nothing waits
        found = moments(node.metrics)
    assert {work: at for work, at in found.items() if work != "usage-replay"} == {
        "blocks": 0,
        "key-sweep": 0,
        "usage-partitions": 0,
    }
