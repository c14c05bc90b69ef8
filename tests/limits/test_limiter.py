"""The limiter's contract, the same over memory, one Redis, a cluster, and a failover whose Redis is gone."""

import asyncio
import secrets
import time

import pytest
import redis

from tests.limits.stores import LimiterNode, LimiterNodes
from tests.servers import OwnValkey


@pytest.fixture(params=["memory", "redis", "cluster", "failover"])
def place(request: pytest.FixtureRequest) -> tuple[str, OwnValkey | None]:
    """A Redis URL, and the server behind it where the test may kill it. Servers start outside a test's loop."""
    if request.param == "failover":
        own: OwnValkey = request.getfixturevalue("own_valkey")
        return own.url, own
    if request.param == "cluster":
        return str(request.getfixturevalue("redis_cluster").url), None
    return (str(request.getfixturevalue("redis_url")) if request.param == "redis" else ""), None


@pytest.fixture
async def node(place: tuple[str, OwnValkey | None], limiters: LimiterNodes) -> LimiterNode:
    url, own = place
    started = limiters.start(url)
    if own:
        await started.limiter.hit("api", "warm")
        await own.kill()
    return started


@pytest.fixture
def ana() -> str:
    """A subject of the test's own: what is written to the cluster stays."""
    return secrets.token_hex(8)


async def test_thirty_are_admitted_and_the_next_is_told_when_to_come_back(node: LimiterNode, ana: str) -> None:
    decisions = [await node.limiter.hit("chat", ana) for _ in range(30)]
    assert [decision.remaining for decision in decisions] == list(range(29, -1, -1))
    assert all(decision.admitted for decision in decisions)
    last = await node.limiter.hit("chat", ana)
    assert (last.admitted, last.remaining, last.enforced) == (False, 0, 30)
    assert last.wait_s is not None
    assert 57 < last.wait_s < 60.1
    assert 115 < last.reset_s < 118.1
    assert (node.counted("chat", "allowed"), node.counted("chat", "limited")) == (30, 1)


async def test_subjects_and_policies_count_apart(node: LimiterNode, ana: str) -> None:
    await node.limiter.hit("chat", ana, cost=30)
    assert (await node.limiter.hit("api", ana)).admitted
    assert (await node.limiter.hit("chat", ana + "x")).admitted
    assert not (await node.limiter.hit("chat", ana)).admitted


async def test_a_cost_that_does_not_fit_counts_nothing(node: LimiterNode, ana: str) -> None:
    await node.limiter.hit("chat", ana, cost=25)
    refused = await node.limiter.hit("chat", ana, cost=6)
    assert (refused.admitted, refused.remaining) == (False, 5)
    assert refused.wait_s is not None
    assert 59 < refused.wait_s < 72.1  # the window's rest, and until 25 weigh 24
    assert (await node.limiter.hit("chat", ana, cost=5)).admitted


async def test_a_cost_beyond_the_limit_never_fits(node: LimiterNode, ana: str) -> None:
    refused = await node.limiter.hit("chat", ana, cost=31)
    assert (refused.admitted, refused.wait_s, refused.remaining) == (False, None, 30)


async def test_a_key_may_have_rates_of_its_own(node: LimiterNode, ana: str) -> None:
    own = {"chat": "2/hour"}
    assert [(await node.limiter.hit("chat", ana, own)).admitted for _ in range(3)] == [True, True, False]
    assert (await node.limiter.hit("api", ana, own)).enforced == 30


async def test_hits_that_come_together_are_counted_each(node: LimiterNode, ana: str) -> None:
    decisions = await asyncio.gather(*(node.limiter.hit("chat", ana) for _ in range(40)))
    assert sum(decision.admitted for decision in decisions) == 30


async def test_retry_after_is_honest(node: LimiterNode, ana: str) -> None:
    """5 a second: after exactly the wait one is admitted; a moment before none is."""
    own = {"chat": "5/second"}
    for _ in range(5):
        assert (await node.limiter.hit("chat", ana, own)).admitted
    refused = await node.limiter.hit("chat", ana, own)
    assert refused.wait_s is not None
    told_at = time.monotonic()
    admitted_at = 0.0
    while not admitted_at:
        sent_at = time.monotonic()
        if (await node.limiter.hit("chat", ana, own)).admitted:
            admitted_at = time.monotonic()
            assert sent_at < told_at + refused.wait_s + 0.05  # it is not later than it was told, but for a round trip
        else:
            assert sent_at <= told_at + refused.wait_s
            await asyncio.sleep(0.001)
    # Redis had read its clock a round trip before it was told, and counts in whole milliseconds.
    assert admitted_at >= told_at + refused.wait_s - 0.02


async def test_a_raised_limit_holds_at_once_and_forgets_nothing(limiters: LimiterNodes, redis_url: str) -> None:
    node = limiters.start(redis_url)
    await node.limiter.hit("chat", "ana", cost=30)
    assert not (await node.limiter.hit("chat", "ana")).admitted
    raised = await node.limiter.hit("chat", "ana", {"chat": "40/minute"})
    assert (raised.admitted, raised.remaining) == (True, 9)


async def test_malformed_rates_of_a_key_give_it_the_settings_limit(limiters: LimiterNodes) -> None:
    decision = await limiters.start().limiter.hit("chat", "ana", {"chat": "plenty"})
    assert (decision.enforced, decision.limit.window_s) == (30, 60)


async def test_a_caller_far_over_the_limit_costs_no_call(limiters: LimiterNodes, redis_url: str) -> None:
    node = limiters.start(redis_url)
    await node.limiter.hit("chat", "ana", cost=30)
    before = node.calls()
    for _ in range(100):
        assert not (await node.limiter.hit("chat", "ana")).admitted
    assert node.calls() == before
    assert node.counted("chat", "limited") == 100


async def test_hits_that_come_during_a_call_share_the_next(limiters: LimiterNodes, redis_url: str) -> None:
    node = limiters.start(redis_url, rate="1000/minute")
    await asyncio.gather(*(node.limiter.hit("chat", f"subject-{number}") for number in range(500)))
    assert node.calls() <= 2


async def test_a_caller_that_leaves_takes_nothing_from_the_others(limiters: LimiterNodes, redis_url: str) -> None:
    node = limiters.start(redis_url)
    tasks = [asyncio.create_task(node.limiter.hit("chat", "ana")) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert sorted(decision.remaining for decision in others) in ([27, 28], [28, 29])  # type: ignore[union-attr]


async def test_lost_scripts_are_loaded_again(limiters: LimiterNodes, redis_url: str) -> None:
    node = limiters.start(redis_url)
    await node.limiter.hit("chat", "ana")
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    decision = await node.limiter.hit("chat", "ana")
    assert (decision.remaining, decision.degraded) == (28, False)


async def test_a_key_is_gone_when_it_no_longer_counts(limiters: LimiterNodes, redis_url: str) -> None:
    await limiters.start(redis_url).limiter.hit("chat", "ana")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*limit*") == [b"atp:limit:{ana}:chat:60"]
        assert 119_000 < client.pttl("atp:limit:{ana}:chat:60") <= 120_000


async def test_a_clock_that_went_back_holds_nobody_longer_than_two_windows(
    limiters: LimiterNodes, redis_url: str
) -> None:
    """As it looks when Redis' clock was an hour ahead: the window begins now."""
    node = limiters.start(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        ahead_ms = int(time.time() * 1000) + 3_600_000
        client.set("atp:limit:{ana}:chat:60", f"{ahead_ms} 7 30")
        decision = await node.limiter.hit("chat", "ana")
        assert not decision.admitted
        assert decision.wait_s is not None
        assert decision.wait_s <= 60.1
        assert 119_000 < client.pttl("atp:limit:{ana}:chat:60") <= 120_000
