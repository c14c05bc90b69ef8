"""The bus when Redis is away for one node or for all, forgets, answers late or refuses: nothing lost or doubled."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis

from service.embedded.valkey import VOLATILE, start_valkey
from service.live.bus_redis import STREAM
from service.live.messages import encode
from tests.live.bus_nodes import BusNodes, push, write
from tests.live.proxy import Proxy, proxied
from tests.servers import OwnValkey
from tests.waiting import eventually


@pytest.fixture
async def nodes() -> AsyncIterator[BusNodes]:
    async with AsyncExitStack() as stack:
        yield BusNodes(stack)


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxied(redis_url) as made:
        yield made


@pytest.fixture
def forgetful_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A Valkey that comes back empty after kill()."""
    with OwnValkey.started(lambda port: start_valkey(tmp_path / "forgetful", port, settings=VOLATILE)) as own:
        yield own


@pytest.mark.parametrize("fault", ["cut", "stalled", "unanswered"])
async def test_a_node_that_loses_redis_for_half_a_second_misses_nothing_and_nobody_gets_anything_twice(
    redis_url: str, nodes: BusNodes, proxy: Proxy, fault: str
) -> None:
    cut_off = await nodes.start(proxy.url)
    fleet = [await nodes.start(redis_url), await nodes.start(redis_url), cut_off]

    async def broadcast(number: int) -> None:
        await asyncio.sleep(number * 0.004)
        await fleet[number % 3].bus.publish(push(str(number)))

    async def outage() -> None:
        await asyncio.sleep(0.15)
        if fault == "cut":
            proxy.cut()
        elif fault == "stalled":
            proxy.stall()
        proxy.swallowing = fault == "unanswered"
        await asyncio.sleep(0.5)
        proxy.mend()

    await asyncio.gather(outage(), *(broadcast(number) for number in range(200)))
    for node in fleet:
        await node.has(200)
    await cut_off.bus.publish(push("last"))
    for node in fleet:
        await eventually(lambda node=node: "last" in node.texts())  # type: ignore[misc]
        assert sorted(node.texts()) == sorted(["last", *(str(number) for number in range(200))])
        assert node.gaps == 0


async def test_alone_a_node_delivers_at_once_and_tells_the_others_in_order_later(
    redis_url: str, nodes: BusNodes, proxy: Proxy
) -> None:
    alone, other = await nodes.start(proxy.url), await nodes.start(redis_url)
    proxy.cut()
    await eventually(lambda: alone.breaker is not None and not alone.breaker.closed)
    started = time.monotonic()
    for number in range(150):
        published = await alone.bus.publish(push(str(number)))
        assert (published.seq, published.degraded) == (None, True)
    assert time.monotonic() - started < 0.5
    assert alone.texts() == [str(number) for number in range(150)]
    assert {entry.seq for entry in alone.given} == {None}
    alone.tick = 7  # sockets that join now are not told of it again, those that come back are
    proxy.mend()
    await other.has(150)
    assert other.texts() == [str(number) for number in range(150)]
    await eventually(lambda: len(alone.given) == 300)
    assert [entry.local_tick for entry in alone.given[150:]] == [1] * 150
    assert [entry.seq for entry in alone.given[150:]] == [entry.seq for entry in other.given]
    assert (await alone.bus.publish(push("again"))).degraded is False


async def test_alone_a_node_delivers_what_is_said_too_and_tells_the_others_in_order_later(
    redis_url: str, nodes: BusNodes, proxy: Proxy
) -> None:
    alone, other = await nodes.start(proxy.url), await nodes.start(redis_url)
    proxy.cut()
    for number in range(250):  # the first of them find it out
        alone.bus.say(push(str(number)))
        await asyncio.sleep(0.001)
    await alone.has(250)
    assert alone.texts() == [str(number) for number in range(250)]
    proxy.mend()
    await other.has(250)
    assert other.texts() == [str(number) for number in range(250)]


async def test_a_message_whose_answer_was_lost_is_delivered_once(redis_url: str, nodes: BusNodes, proxy: Proxy) -> None:
    teller = await nodes.start(proxy.url, probing=False)
    other = await nodes.start(redis_url)
    proxy.swallowing = True
    published = await teller.bus.publish(push("applied"))
    assert published.degraded
    assert teller.texts() == ["applied"]
    await other.has(1)
    proxy.mend()
    with redis.Redis.from_url(redis_url) as client:
        await eventually(lambda: client.xlen(STREAM) == 2, within_s=4)
    await teller.bus.publish(push("next"))
    await teller.has(2)
    await other.has(2)
    assert teller.texts() == other.texts() == ["applied", "next"]
    assert [entry.local_tick for entry in teller.given] == [None, 1, None]
    assert teller.counted("duplicate") == other.counted("duplicate") == 1


async def test_a_killed_redis_that_kept_its_data_costs_nothing(own_valkey: OwnValkey, nodes: BusNodes) -> None:
    one, two = await nodes.start(own_valkey.url), await nodes.start(own_valkey.url)
    seq = (await one.bus.publish(push("before"))).seq
    await one.has(1)
    await two.has(1)
    await own_valkey.kill()
    await one.bus.publish(push("meanwhile"))
    await two.bus.publish(push("also meanwhile"))
    await own_valkey.restart()
    await one.has(3)
    await two.has(3)
    assert (await one.bus.publish(push("after"))).degraded is False
    await one.has(4)
    await two.has(4)
    assert sorted(one.texts()) == sorted(two.texts()) == ["after", "also meanwhile", "before", "meanwhile"]
    assert (one.gaps, two.gaps) == (0, 0)
    assert sorted(two.missed(str(seq)) or []) == ["after", "also meanwhile", "meanwhile"]


async def test_a_redis_that_came_back_empty_is_told_again_and_clients_are_told_of_the_gap(
    forgetful_valkey: OwnValkey, nodes: BusNodes
) -> None:
    url = forgetful_valkey.url
    one, two = await nodes.start(url), await nodes.start(url)
    seq = (await one.bus.publish(push("before"))).seq
    await one.has(1)
    await two.has(1)
    await forgetful_valkey.kill()
    await two.bus.publish(push("meanwhile"))
    await forgetful_valkey.restart()
    await one.has(2)
    await eventually(lambda: one.gaps == two.gaps == 1)
    with redis.Redis.from_url(url) as client:
        await eventually(lambda: client.xlen(STREAM) == 2)
    await one.bus.publish(push("after"))
    await one.has(3)
    await two.has(3)
    assert one.texts() == two.texts() == ["before", "meanwhile", "after"]
    assert one.missed(str(seq)) is None
    assert one.missed(one.bus.position) == []
    assert (one.gaps, two.gaps) == (1, 1)


async def test_a_redis_that_came_back_empty_with_its_clock_behind_is_still_followed(
    forgetful_valkey: OwnValkey, nodes: BusNodes
) -> None:
    url = forgetful_valkey.url
    one, two = await nodes.start(url), await nodes.start(url)
    ahead = f"{int(time.time() * 1000) + 3_600_000}-0"  # numbered by a clock an hour ahead of the one after
    write(url, ahead, "before")
    await one.has(1)
    await two.has(1)
    await forgetful_valkey.kill()
    await eventually(lambda: one.breaker is not None and not one.breaker.closed)
    await forgetful_valkey.restart()
    await eventually(lambda: one.gaps == two.gaps == 1)
    await one.bus.publish(push("after"))
    await one.has(2)
    await two.has(2)
    assert one.texts() == two.texts() == ["before", "after"]
    assert one.missed(ahead) is None
    assert one.missed(str(one.given[-1].seq)) is None  # of the new order, but it might be of the old


async def test_a_frozen_redis_that_does_late_what_it_was_asked_repeats_nothing(
    own_valkey: OwnValkey, nodes: BusNodes
) -> None:
    one, two = await nodes.start(own_valkey.url), await nodes.start(own_valkey.url)
    own_valkey.freeze()
    for number in range(6):
        assert (await (one, two)[number % 2].bus.publish(push(str(number)))).degraded
    own_valkey.thaw()
    await one.has(6)
    await two.has(6)
    await one.bus.publish(push("6"))
    await one.has(7)
    await two.has(7)
    assert sorted(one.texts()) == sorted(two.texts()) == ["0", "1", "2", "3", "4", "5", "6"]


async def test_what_was_cut_off_while_a_node_was_away_is_a_gap(redis_url: str, nodes: BusNodes, proxy: Proxy) -> None:
    node = await nodes.start(proxy.url)
    seen = (await node.bus.publish(push("seen"))).seq
    await node.has(1)
    proxy.cut()
    await eventually(lambda: node.breaker is not None and not node.breaker.closed)
    with redis.Redis.from_url(redis_url) as client:
        seqs = [client.xadd(STREAM, {"m": encode(push(str(number)))}).decode() for number in range(50)]
        client.xtrim(STREAM, maxlen=10, approximate=False)
        proxy.mend()
        await node.has(11)
        assert node.texts()[:11] == ["seen", *(str(number) for number in range(40, 50))]
        assert node.gaps == 1
        assert node.missed(str(seen)) is None
        assert node.missed(seqs[38]) is None
        assert node.missed(seqs[40]) == [str(number) for number in range(41, 50)]


async def test_a_refusing_redis_is_asked_again_although_it_is_not_away(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set(STREAM, "of another type")
        for text in ("a", "b", "c"):
            assert (await one.bus.publish(push(text))).degraded
        await one.bus.recovered()
        assert one.breaker is not None
        assert one.breaker.closed
        client.delete(STREAM)
    await two.has(3)
    assert one.texts() == two.texts() == ["a", "b", "c"]


async def test_more_than_can_wait_drops_the_oldest_and_counts_them(
    redis_url: str, nodes: BusNodes, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.live.bus_outbox.PENDING", 5)
    alone, other = await nodes.start(proxy.url), await nodes.start(redis_url)
    proxy.cut()
    for number in range(8):
        await alone.bus.publish(push(str(number)))
    assert alone.texts() == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert alone.counted("dropped") == 3
    proxy.mend()
    await other.has(5)
    assert other.texts() == ["3", "4", "5", "6", "7"]


async def test_a_node_that_starts_without_redis_delivers_alone_and_catches_up(
    own_valkey: OwnValkey, nodes: BusNodes
) -> None:
    async with proxied(own_valkey.url) as proxy:
        other = await nodes.start(own_valkey.url)
        proxy.cut()
        late = nodes.make(proxy.url)
        await eventually(lambda: late.breaker is not None and not late.breaker.closed)
        assert late.bus.position == ""
        assert late.missed("1-0") is None
        assert (await late.bus.publish(push("alone"))).degraded
        await other.bus.publish(push("from the other"))
        proxy.mend()
        await late.has(2)
        await other.has(2)
        assert sorted(late.texts()) == sorted(other.texts()) == ["alone", "from the other"]


async def test_recovery_of_a_full_queue_is_quick(redis_url: str, nodes: BusNodes, proxy: Proxy) -> None:
    alone, other = await nodes.start(proxy.url, probing=False), await nodes.start(redis_url)
    proxy.cut()
    assert alone.breaker
    alone.breaker.failed("one")
    alone.breaker.failed("two")
    for number in range(3000):
        await alone.bus.publish(push(str(number)))
    proxy.mend()
    started = time.monotonic()
    while not alone.breaker.closed:
        await alone.breaker.probe()  # closing, it runs the hooks
    assert time.monotonic() - started < 3.0
    await other.has(3000)
    assert other.texts() == [str(number) for number in range(3000)]
