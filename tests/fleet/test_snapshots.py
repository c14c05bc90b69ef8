"""The fleet's values: taken by one node at a time, exported by all, and by none once they are old."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.errors import StateUnavailable
from service.fleet.snapshots import Snapshots
from service.fleet.store import LEAD, PEAKS, SNAPSHOT, Fleet, MemoryFleet, RedisFleet
from service.state.redis import RedisState
from service.telemetry.fleet_metrics import FLEET, Snapshot
from service.telemetry.metrics import Metrics
from tests.nodes import RunningNode, node_settings, running
from tests.redis_topologies import Cluster
from tests.routes.test_tasks import ONE, submit
from tests.servers import OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

THREE: Snapshot = {"nodes": [([], 3.0)], "sessions": [(["mobile"], 1.0), (["tablet"], 2.0)]}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "redis_url", "redis_cluster"])
def where(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis; empty for memory."""
    if request.param == "memory":
        return ""
    given: str | Cluster = request.getfixturevalue(request.param)
    return given.url if isinstance(given, Cluster) else given


@pytest.fixture
async def fleet(where: str, model_server: Upstream) -> AsyncIterator[Fleet]:
    if not where:
        yield MemoryFleet()
        return
    redis = RedisState(node_settings("postgresql://nobody@127.0.0.1:1/atp", where, model_server), Metrics())
    for key in (LEAD, SNAPSHOT, PEAKS):  # a cluster keeps what a test writes
        await redis.run("delete", lambda client, key=key: client.delete(key))  # type: ignore[misc]  # a lambda with a default has no type
    yield RedisFleet(redis)
    await redis.close()


async def test_one_at_a_time_has_the_turn(fleet: Fleet) -> None:
    assert [await fleet.lead() for _ in range(3)] == [True, False, False]


async def test_what_was_put_is_read_and_is_fresh_for_thirty_seconds(fleet: Fleet) -> None:
    assert await fleet.get() is None
    await fleet.put(THREE)
    found = await fleet.get()
    assert found is not None
    values, fresh_s = found
    assert values == THREE
    assert 29 < fresh_s <= 30


async def test_the_most_sockets_of_a_day_and_ever(fleet: Fleet) -> None:
    asked = [("2026-11-23", 5), ("2026-11-23", 3), ("2026-11-24", 2), ("2026-11-24", 4)]
    assert [await fleet.sockets_peak(*given) for given in asked] == [(5, 5), (5, 5), (2, 5), (4, 5)]


async def test_a_snapshot_is_exported_while_it_is_fresh_and_then_nothing() -> None:
    clock, metrics = Clock(), Metrics()

    async def source() -> Snapshot:
        return {"online_users": [((), 42.0)]}

    snapshots = Snapshots(MemoryFleet(clock), {"presence": source}, clock, wall=lambda: 1_700_000_000.0)
    metrics.observe_fleet(snapshots.current)
    assert of_fleet(metrics) == {}
    await snapshots.look()
    shown = {"online_users": 42.0, "snapshot_timestamp_seconds": 1_700_000_000.0, "snapshot_duration_seconds": 0.0}
    assert of_fleet(metrics) == shown
    clock.now += 29.9
    assert of_fleet(metrics) == shown
    clock.now += 0.2
    assert of_fleet(metrics) == {}


async def test_what_is_away_is_left_out_and_the_rest_is_told() -> None:
    async def away() -> Snapshot:
        raise StateUnavailable("presence")

    async def there() -> Snapshot:
        return {"nodes": [((), 2.0)]}

    metrics, snapshots = Metrics(), Snapshots(MemoryFleet(), {"presence": away, "other": there})
    metrics.observe_fleet(snapshots.current)
    await snapshots.look()
    assert set(of_fleet(metrics)) == {"nodes", "snapshot_timestamp_seconds", "snapshot_duration_seconds"}


def of_fleet(metrics: Metrics) -> dict[str, float]:
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    found = {s.name.removeprefix("atp_fleet_"): s.value for s in samples if s.name.startswith("atp_fleet_")}
    return {name: value for name, value in found.items() if name in {metric.name for metric in FLEET}}


async def fleet_series(node: RunningNode) -> dict[str, float]:
    text = (await node.private.get("/metrics")).text
    lines = [line.removeprefix("atp_fleet_") for line in text.splitlines() if line.startswith("atp_fleet_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_two_nodes_export_the_same_and_all_of_it(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server)
    async with running(settings) as one, running(settings) as other:
        heartbeat = {"session_id": "s1", "client_id": "c1", "device_type": "tablet"}
        assert (await one.http.post("/api/v1/presence/heartbeat", json=heartbeat)).status_code == 200
        await submit(one, {"tasks": [ONE] * 3})
        asked = {"agent": "reasoning", "task": "Why?"}
        assert (await one.http.post("/api/v1/chat", json=asked)).status_code == 200
        assert (await one.http.post("/api/admin/broadcast", json={"message": "hello"})).status_code == 202
        blocked = {"kind": "user", "subject": "mallory", "for_s": 60}
        assert (await one.http.post("/api/admin/blocks", json=blocked)).status_code == 201
        seen = dict[str, float]()

        async def all_there() -> bool:
            seen.clear()
            seen.update(await fleet_series(other))
            return seen.get('queue_depth{queue="chat",state="ready"}') == 3 and seen.get("nodes") == 2

        await eventually(all_there, within_s=25)
        assert await fleet_series(one) == seen
    assert {name.partition("{")[0] for name in seen} == {metric.name for metric in FLEET}
    prefix = settings_prefix(seen)
    assert {name: value for name, value in seen.items() if "timestamp" not in name and "seconds" not in name} == {
        "online_users": 1,
        'online_users_peak{window="day"}': 1,
        'online_users_peak{window="all_time"}': 1,
        'ws_connections_peak{window="day"}': 0,
        'ws_connections_peak{window="all_time"}': 0,
        'active_users{window="day"}': 1,
        'active_users{window="week"}': 1,
        'active_users{window="month"}': 1,
        'sessions{device="mobile"}': 0,
        'sessions{device="tablet"}': 1,
        'sessions{device="desktop"}': 0,
        'sessions{device="unknown"}': 0,
        'blocked_users{reason="key"}': 0,
        'blocked_users{reason="user"}': 1,
        'blocked_users{reason="address"}': 0,
        f'top_api_key_requests{{key_id="{prefix}"}}': 1,
        'top_api_key_requests{key_id="other"}': 0,
        'queue_depth{queue="chat",state="ready"}': 3,
        'queue_depth{queue="chat",state="scheduled"}': 0,
        'queue_depth{queue="chat",state="running"}': 0,
        'queue_depth{queue="callbacks",state="ready"}': 0,
        "redis_memory_used_bytes": seen["redis_memory_used_bytes"],
        "redis_memory_max_bytes": seen["redis_memory_max_bytes"],
        "nodes": 2,
        "presence_drift": 0,
    }
    assert seen["redis_memory_used_bytes"] > 0


def settings_prefix(seen: dict[str, float]) -> str:
    (key,) = (name for name in seen if name.startswith("top_api_key_requests") and "other" not in name)
    return key.split('"')[1]


async def test_while_redis_is_away_the_fleet_is_not_told_of_and_comes_back(
    database_url: str, own_valkey: OwnValkey, model_server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.fleet.store.FRESH_S", 2.0)
    monkeypatch.setattr("service.fleet.store.EVERY_S", 0.2)
    monkeypatch.setattr("service.fleet.snapshots.LOOK_EVERY_S", 0.1)
    async with running(node_settings(database_url, own_valkey.url, model_server)) as node:

        async def known() -> bool:
            return "nodes" in await fleet_series(node)

        await eventually(known, within_s=10)
        await own_valkey.kill()

        async def unknown() -> bool:
            return await fleet_series(node) == {}

        await eventually(unknown, within_s=10)
        await own_valkey.restart()
        await eventually(known, within_s=15)


async def test_a_silent_store_is_asked_again(model_server: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fleet.snapshots.LOOK_EVERY_S", 0.01)

    class Silent(MemoryFleet):
        asked = 0

        async def lead(self) -> bool:
            self.asked += 1
            if self.asked == 1:
                raise StateUnavailable("fleet_lead")
            return await super().lead()

    store = Silent()
    snapshots = Snapshots(store, {})
    loop = asyncio.create_task(snapshots.run())
    await eventually(lambda: snapshots.current() is not None)
    loop.cancel()
