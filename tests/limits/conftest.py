from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.limits.stores import LimiterNodes


@pytest.fixture
async def limiters() -> AsyncIterator[LimiterNodes]:
    async with AsyncExitStack() as stack:
        yield LimiterNodes(stack)
