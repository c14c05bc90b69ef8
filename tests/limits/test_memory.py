"""This node's own windows: divided by the nodes, bounded, on a clock that the test moves."""

import pytest

from service.limits.hits import Hit
from service.limits.memory import MemoryWindows


async def admitted(windows: MemoryWindows, key: str, limit: int = 10, cost: int = 1) -> bool:
    (outcome,) = await windows.hit([Hit(key, limit, 60_000, cost)])
    return outcome.admitted


@pytest.mark.parametrize(("nodes", "share"), [(1, 10), (3, 4), (4, 3), (11, 1), (0, 10)])
async def test_the_limit_is_divided_by_the_nodes_and_rounded_up(nodes: int, share: int) -> None:
    windows = MemoryWindows(lambda: nodes, lambda: 0.0)
    assert [await admitted(windows, "ana") for _ in range(share + 1)] == [True] * share + [False]


async def test_a_quota_is_the_limit_of_all_that_have_more() -> None:
    windows = MemoryWindows(lambda: 3, lambda: 0.0, quota=2)
    assert [await admitted(windows, "ana") for _ in range(3)] == [True, True, False]
    assert [await admitted(windows, "ben", limit=3) for _ in range(2)] == [True, False]


async def test_the_subject_not_heard_of_for_longest_gives_way() -> None:
    windows = MemoryWindows(clock=lambda: 0.0, most=2)
    for key in ("ana", "ben", "ana", "cleo"):
        assert await admitted(windows, key, limit=2)
    assert len(windows) == 2
    assert not await admitted(windows, "ana", limit=2)  # remembered
    assert await admitted(windows, "ben", limit=2, cost=2)  # forgotten


async def test_where_closed_a_new_subject_is_refused_until_there_is_room() -> None:
    now = 0.0
    windows = MemoryWindows(clock=lambda: now, most=1, closed=True)
    assert await admitted(windows, "ana")
    assert not await admitted(windows, "ben")
    now = 120.0
    assert await admitted(windows, "ben")
