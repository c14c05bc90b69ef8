from collections.abc import AsyncIterator

import pytest

from tests.cache.nodes import CacheNode, cache_node


@pytest.fixture
async def first(redis_url: str) -> AsyncIterator[CacheNode]:
    async with cache_node(redis_url) as node:
        yield node


@pytest.fixture
async def second(redis_url: str) -> AsyncIterator[CacheNode]:
    async with cache_node(redis_url) as node:
        yield node


@pytest.fixture
async def alone() -> AsyncIterator[CacheNode]:
    """A node without Redis."""
    async with cache_node("") as node:
        yield node
