"""Several nodes on one Redis, and what is admitted while it is away."""

import asyncio
import time
from bisect import bisect_left

import pytest

from service.limits.hits import Hit
from service.limits.memory import MemoryWindows
from tests.limits.stores import LimiterNode, LimiterNodes
from tests.servers import OwnValkey
from tests.waiting import eventually

LIMIT, WINDOW_S = 400, 1


async def flood(nodes: list[LimiterNode], per_s: int, for_s: float) -> tuple[list[float], float]:
    """Hits of all nodes at a steady pace: when each that was admitted was answered, and the longest wait for one."""
    admitted: list[float] = []
    longest, loop = 0.0, asyncio.get_running_loop()
    begun = loop.time()

    async def hit(node: LimiterNode) -> None:
        nonlocal longest
        started = time.monotonic()
        if (await node.limiter.hit("chat", "ana")).admitted:
            admitted.append(time.monotonic())
        longest = max(longest, time.monotonic() - started)

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * for_s)):
            await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))
            group.create_task(hit(nodes[number % len(nodes)]))
    return admitted, longest


async def test_four_nodes_at_twice_the_limit_admit_what_one_would(limiters: LimiterNodes, redis_url: str) -> None:
    nodes = [limiters.start(redis_url, f"{LIMIT}/second") for _ in range(4)]
    begun = time.monotonic()
    admitted, _ = await flood(nodes, 2 * LIMIT, for_s=4)
    took_s = max(admitted) - begun
    allowed = LIMIT * took_s / WINDOW_S  # from the first hit on, for that began a window
    print(f"admitted {len(admitted)} of {allowed:.0f} in {took_s:.2f} s")
    assert len(admitted) <= allowed * 1.02
    assert len(admitted) >= LIMIT * 3.5  # and not much less than may be


async def test_no_window_of_a_steady_flood_has_more_than_the_limit_by_two_per_cent() -> None:
    """By the arithmetic that all stores share, on a clock that no busy machine delays."""
    now_ms = 0
    windows = MemoryWindows(clock=lambda: now_ms / 1000)
    admitted: list[int] = []
    for now_ms in range(10_000):
        for outcome in await windows.hit([Hit("ana", LIMIT, 1000)] * (now_ms % 2 + 1)):
            if outcome.admitted:
                admitted.append(now_ms)
    most = max(bisect_left(admitted, at + 1000) - first for first, at in enumerate(admitted))
    assert LIMIT <= most <= LIMIT * 1.02


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_redis_lost_in_the_middle_admits_at_most_the_limit_again_and_nobody_waits_a_second(
    limiters: LimiterNodes, own_valkey: OwnValkey, fault: str
) -> None:
    nodes = [limiters.start(own_valkey.url, "100/hour", nodes=lambda: 4) for _ in range(4)]
    before, _ = await flood(nodes, 200, for_s=0.25)
    assert len(before) == 50
    await own_valkey.kill() if fault == "killed" else own_valkey.freeze()  # type: ignore[func-returns-value]
    during, longest_s = await flood(nodes, 400, for_s=1.5)
    if fault == "frozen":
        own_valkey.thaw()
    assert len(during) == 100  # 25 on each of the four nodes
    assert longest_s < 1.0


async def test_with_a_quota_the_first_hit_of_an_outage_is_the_last_until_redis_is_back(
    limiters: LimiterNodes, own_valkey: OwnValkey
) -> None:
    node, other = (limiters.start(own_valkey.url, "20/minute", nodes=lambda: 4, quota=1) for _ in range(2))
    assert [(await node.limiter.hit("auth", "ana")).remaining for _ in range(3)] == [19, 18, 17]
    await node.limiter.hit("auth", "ben", cost=20)
    await own_valkey.kill()
    breakers = [each.breaker for each in (node, other) if each.breaker]
    await eventually(lambda: [breaker.closed for breaker in breakers] == [False, False])
    for limiter in (node.limiter, other.limiter):
        assert limiter.refused("auth", "ana") is None
        first = await limiter.hit("auth", "ana")
        assert (first.admitted, first.degraded, first.enforced, first.remaining) == (True, True, 1, 0)
        refusal = limiter.refused("auth", "ana")
        assert refusal
        assert refusal.wait_s is not None
        assert (refusal.enforced, 59 < refusal.wait_s < 60.1) == (1, True)
        assert not (await limiter.hit("auth", "ana")).admitted
    assert node.limiter.refused("auth", "ben")  # whom Redis had refused before
    await own_valkey.restart()
    await eventually(lambda: node.limiter.refused("auth", "ana") is None, within_s=6)
    assert (await node.limiter.hit("auth", "ana")).enforced == 20


async def test_after_the_outage_redis_counts_again(limiters: LimiterNodes, own_valkey: OwnValkey) -> None:
    node = limiters.start(own_valkey.url, "100/hour", nodes=lambda: 4)
    assert node.breaker
    await own_valkey.kill()
    alone = await node.limiter.hit("chat", "ana")
    assert (alone.degraded, alone.enforced, alone.remaining) == (True, 25, 24)
    await node.limiter.hit("chat", "ana", cost=24)
    assert not (await node.limiter.hit("chat", "ana")).admitted
    await own_valkey.restart()

    async def back() -> bool:
        return not (await node.limiter.hit("api", "ben")).degraded

    await eventually(back, within_s=6)
    together = await node.limiter.hit("chat", "ana")  # what this node refused alone is forgotten
    assert (together.admitted, together.degraded, together.enforced) == (True, False, 100)
