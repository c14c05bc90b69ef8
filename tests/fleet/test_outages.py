"""Chats through an outage of Redis: none fails for it, nobody waits for long, each has its usage row.

OUTAGE_S seconds in the suite; `ATP_OUTAGE_S=60` is the promise as it is written.
"""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.db.pool import one_connection
from service.embedded.folder import StateFolder
from service.keys import issuing
from service.keys.store import SCOPES
from tests.processes import NodeProcess
from tests.servers import OwnServer, OwnValkey
from tests.upstream import SCRIPTS, Upstream
from tests.waiting import eventually

OUTAGE_S = float(os.environ.get("ATP_OUTAGE_S", "4"))
CLIENTS = 8
SETTLE_S = 30.0

pytestmark = pytest.mark.timeout(120 + 2 * OUTAGE_S)


@dataclass
class Tally:
    """What clients saw: ids of acknowledged chats, statuses, and the seconds each took."""

    acknowledged: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * share)]


@asynccontextmanager
async def node_on(database_url: str, redis_url: str, model_url: str, folder: Path) -> AsyncIterator[NodeProcess]:
    provider = {"base_url": model_url, "models": {name: {} for name in SCRIPTS}}
    settings = {"database_url": database_url, "redis_url": redis_url, "providers": json.dumps({"scripted": provider})}
    node = NodeProcess(StateFolder.open(folder), "node-1", state_dir=folder / "node", **settings)
    async with one_connection(database_url) as connection:
        await issuing.create_user(connection, "admin", "admin@example.org", "admin")
        node.key = (await issuing.create_key(connection, "admin", "test", SCOPES)).text
    await node.start()
    try:
        async with node.clients():
            yield node
    finally:
        await node.kill()


async def talk(node: NodeProcess, stop: asyncio.Event, tally: Tally, numbers: Any) -> None:
    """Half of the questions are known answers, the others go to the model."""
    while not stop.is_set():
        number = next(numbers)
        task = "What is known?" if number % 2 else f"What is {number}?"
        started = time.monotonic()
        answer = await node.http.post("/api/v1/chat", json={"agent": "reasoning", "task": task, "model": "good"})
        tally.took_s.append(time.monotonic() - started)
        tally.statuses[answer.status_code] = tally.statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 200:
            tally.acknowledged.append(answer.json()["id"])


@asynccontextmanager
async def talking(node: NodeProcess) -> AsyncIterator[Tally]:
    tally, stop, numbers = Tally(), asyncio.Event(), itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(talk(node, stop, tally, numbers))
        await eventually(lambda: len(tally.acknowledged) > 50, within_s=20)
        yield tally
        stop.set()


async def through(server: OwnServer[Any], how: str) -> None:
    if how == "killed":
        await server.kill()
        await asyncio.sleep(OUTAGE_S)
        await server.restart()
    else:
        server.freeze()
        await asyncio.sleep(OUTAGE_S)
        server.thaw()


async def stored(database_url: str) -> list[str]:
    async with one_connection(database_url) as connection:
        return [row[0] for row in await (await connection.execute("SELECT id::text FROM api_usage")).fetchall()]


async def until_stored(database_url: str, acknowledged: list[str]) -> float:
    """Seconds until every acknowledged chat has its row, once."""

    async def whole() -> bool:
        return set(acknowledged) <= set(await stored(database_url))

    return await eventually(whole, within_s=SETTLE_S)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_chats_go_on_without_redis_and_none_fails_for_it(
    how: str, database_url: str, own_valkey: OwnValkey, model_server: Upstream, tmp_path: Path
) -> None:
    async with node_on(database_url, own_valkey.url, model_server.base_url, tmp_path) as node:
        async with talking(node) as tally:
            await through(own_valkey, how)
            seen = len(tally.acknowledged)
            await eventually(lambda: len(tally.acknowledged) > seen + 50, within_s=20)
        await until_stored(database_url, tally.acknowledged)
        assert node.faults() == []
    assert set(tally.statuses) == {200}
    assert max(tally.took_s) < 2.0
    print(f"{how} {OUTAGE_S:.0f} s: {len(tally.took_s)} chats, p99 {tally.quantile(0.99):.3f} s, "
          f"max {max(tally.took_s):.3f} s")  # fmt: skip
