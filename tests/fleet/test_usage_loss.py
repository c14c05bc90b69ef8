"""Usage rows of a whole node under load: killed, with PostgreSQL away, and with Redis away.

ATP_OUTAGE_S makes the outages longer: 60 is what is promised, 5 is what the suite has time for.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fleet.crowd import percentile
from tests.processes import Fleet, NodeProcess
from tests.servers import OwnPostgres, OwnServer, OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

OUTAGE_S = float(os.environ.get("ATP_OUTAGE_S", "5"))
pytestmark = pytest.mark.timeout(OUTAGE_S + 60)
KNOWN = "What is the capital of France?"
CLIENTS = 8
KILLS = 3


@dataclass
class Seen:
    """What clients saw: the ids of answered chats, other statuses, and how long each answer took."""

    ids: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)


async def ask(node: NodeProcess, seen: Seen) -> None:
    """One after the other, until the node is gone; every second answer is known, the others go to the model."""
    try:
        while True:
            began = time.monotonic()
            task = KNOWN if len(seen.took_s) % 2 else f"What is {began}?"
            response = await node.http.post("/api/v1/chat", json={"agent": "reasoning", "task": task, "model": "good"})
            seen.took_s.append(time.monotonic() - began)
            if response.status_code == 200:
                seen.ids.append(response.json()["id"])
            else:
                seen.refused.append(response.status_code)
    except httpx2.TransportError:
        return


@asynccontextmanager
async def load(node: NodeProcess, seen: Seen) -> AsyncIterator[None]:
    async with node.clients():
        clients = [asyncio.create_task(ask(node, seen)) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


@asynccontextmanager
async def one_node(folder: Path, database_url: str, redis_url: str, models: Upstream) -> AsyncIterator[Fleet]:
    fleet = Fleet(folder, database_url, [redis_url], models.base_url)
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.kill()


async def many_more(seen: Seen) -> None:
    wanted = len(seen.ids) + 200
    await eventually(lambda: len(seen.ids) >= wanted, within_s=20)


async def begin(server: OwnServer[Any], fault: str) -> None:
    await (server.kill() if fault == "gone" else asyncio.to_thread(server.freeze))


async def end(server: OwnServer[Any], fault: str) -> None:
    await (server.restart() if fault == "gone" else asyncio.to_thread(server.thaw))


async def stored(fleet: Fleet) -> list[str]:
    return [row[0] for row in await fleet.rows("SELECT id::text FROM api_usage")]


async def spool_is_empty(node: NodeProcess) -> bool:
    return await node.metric("atp_usage_spool_rows") == 0


async def test_a_node_killed_under_load_loses_no_answered_chat_and_counts_none_twice(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream, tmp_path: Path
) -> None:
    seen = Seen()
    async with one_node(tmp_path / "fleet", own_postgres.dsn, redis_url, model_server) as fleet:
        (node,) = fleet.nodes
        for number in range(1, KILLS + 1):
            async with load(node, seen):
                await many_more(seen)
                if number == KILLS:  # the last time with PostgreSQL gone
                    await own_postgres.kill()
                    await many_more(seen)
                await node.kill()
            if number == KILLS:
                await own_postgres.restart()
            await node.start()
        async with node.clients():
            await eventually(lambda: spool_is_empty(node), within_s=10)
        rows = await stored(fleet)
        sums = await fleet.rows("SELECT sum(requests)::int FROM usage_daily")
    lost = set(seen.ids) - set(rows)
    print(f"kill -9 of a node x{KILLS}: {len(seen.ids)} answered, {len(lost)} lost, {len(rows) - len(set(rows))} twice")
    assert (lost, len(rows), sums) == (set(), len(set(rows)), [(len(rows),)])


@pytest.mark.parametrize("fault", ["gone", "frozen"])
async def test_postgresql_away_under_load_costs_no_usage_and_nobody_waits_for_two_seconds(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream, tmp_path: Path, fault: str
) -> None:
    seen = Seen()
    async with one_node(tmp_path / "fleet", own_postgres.dsn, redis_url, model_server) as fleet:
        (node,) = fleet.nodes
        async with load(node, seen):
            await eventually(lambda: len(seen.ids) > 500, within_s=20)
            await begin(own_postgres, fault)
            await asyncio.sleep(OUTAGE_S)  # what is measured is this long
            spooled = await node.metric("atp_usage_spool_rows")
            await end(own_postgres, fault)
            back = time.monotonic()
            await eventually(lambda: spool_is_empty(node), within_s=30)
            drained_s = time.monotonic() - back
        rows = await stored(fleet)
        stopped = await node.terminate()
    lost, took = set(seen.ids) - set(rows), sorted(seen.took_s)
    print(f"PostgreSQL {fault} {OUTAGE_S:.0f} s: {len(seen.ids)} answered, {len(seen.refused)} refused, ", end="")
    print(f"{len(lost)} lost; ", end="")
    print(f"{spooled:.0f} spooled, drained {drained_s:.1f} s after; ", end="")
    print(f"p50 {percentile(took, 0.5):.3f} p99 {percentile(took, 0.99):.3f} max {took[-1]:.2f} s")
    assert (lost, len(rows), seen.refused, stopped) == (set(), len(set(rows)), [], 0)
    assert spooled > 100
    assert took[-1] < 2


@pytest.mark.parametrize("fault", ["gone", "frozen"])
async def test_redis_away_under_load_fails_no_chat_and_nobody_waits_for_two_seconds(
    database_url: str, own_valkey: OwnValkey, model_server: Upstream, tmp_path: Path, fault: str
) -> None:
    seen = Seen()
    async with one_node(tmp_path / "fleet", database_url, own_valkey.url, model_server) as fleet:
        (node,) = fleet.nodes
        async with load(node, seen):
            await many_more(seen)
            await begin(own_valkey, fault)
            await asyncio.sleep(OUTAGE_S)  # what is measured is this long
            await end(own_valkey, fault)
            await many_more(seen)
        rows, faults = await stored(fleet), node.faults()
    lost, took = set(seen.ids) - set(rows), sorted(seen.took_s)
    p99_s = percentile(took, 0.99)
    print(f"Redis {fault} {OUTAGE_S:.0f} s: {len(seen.ids)} answered, p99 {p99_s:.3f} max {took[-1]:.2f} s")
    assert (lost, len(rows), seen.refused, faults) == (set(), len(set(rows)), [], [])
    assert took[-1] < 2
