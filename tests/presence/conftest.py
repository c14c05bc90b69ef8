"""Nodes over the session's servers, and leases that end soon."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from service.presence import tracker as tracking
from tests.presence.nodes import Nodes
from tests.redis_topologies import Cluster


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(stack)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a tenth of the real length, so that a test of death takes a second; the proportions stay."""
    monkeypatch.setattr("service.presence.leases.LEASE_MS", 1000)
    monkeypatch.setattr(tracking, "BEAT_S", 0.3)


@pytest.fixture
async def cluster_url(redis_cluster: Cluster) -> str:
    """The session's cluster, emptied."""
    for node in redis_cluster.nodes:
        async with Redis.from_url(node.url) as client:
            await client.flushall()
    return redis_cluster.url
