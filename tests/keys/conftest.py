from collections.abc import AsyncIterator

import pytest

from tests.keys.people import roomy
from tests.nodes import RunningNode, running
from tests.upstream import Upstream

Pair = tuple[RunningNode, RunningNode]


@pytest.fixture
async def pair(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[Pair]:
    """Two nodes over one database and one Redis."""
    settings = [roomy(database_url, redis_url, model_server, node_name=name) for name in ("node-1", "node-2")]
    async with running(settings[0]) as first, running(settings[1]) as second:
        yield first, second
