from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream

AGENTS = """
[agents.sound]
name = "Sound"
description = "Works."
instructions = "Answer."
model = "good"

[agents.broken]
name = "Broken"
description = "Its model refuses."
instructions = "Answer."
model = "refuses"
"""


@pytest.fixture
async def strict_node(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    """A node that gives models little time and few bytes."""
    limits = {
        "llm_first_token_timeout": 0.4,
        "llm_gap_timeout": 0.4,
        "llm_total_timeout": 0.8,
        "llm_max_response_bytes": 100_000,
    }
    async with running(node_settings(database_url, redis_url, model_server, **limits)) as started:
        yield started


@pytest.fixture
async def failing_agent_node(
    database_url: str, redis_url: str, model_server: Upstream, tmp_path: Path
) -> AsyncIterator[RunningNode]:
    """A node with two agents, one of them on a model that refuses."""
    file = tmp_path / "agents.toml"
    file.write_text(AGENTS)
    async with running(node_settings(database_url, redis_url, model_server, agents_file=file)) as started:
        yield started
