"""The bus with a Redis that answers: one order for all, each message once, and what a returning client is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis

from service.background import end
from service.errors import BadRequest
from service.live.bus_entries import Entry, Seq
from service.live.bus_redis import STREAM, RedisBusLog
from service.live.messages import AnyMessage, Blocked, Disconnect, Drain, Flush, decode, encode
from service.settings import load
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.live.bus_nodes import BusNode, BusNodes, push, write
from tests.redis_topologies import Cluster, SentinelTrio
from tests.waiting import eventually


@pytest.fixture
async def nodes() -> AsyncIterator[BusNodes]:
    async with AsyncExitStack() as stack:
        yield BusNodes(stack)


async def test_two_nodes_get_everything_once_in_one_order(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)

    async def talk(node: BusNode, name: str) -> None:
        for number in range(50):
            published = await node.bus.publish(push(f"{name}{number}"))
            assert not published.degraded

    await asyncio.gather(talk(one, "a"), talk(two, "b"))
    await one.has(100)
    await two.has(100)
    assert one.given == two.given
    for name in "ab":
        assert [text for text in one.texts() if text[0] == name] == [f"{name}{number}" for number in range(50)]
    assert one.counted("published") == 50
    assert one.counted("received") == 100
    assert one.bus.position == one.given[-1].seq


async def test_who_has_no_sockets_hears_all_but_pushes(redis_url: str, nodes: BusNodes) -> None:
    node, worker = await nodes.start(redis_url), await nodes.start(redis_url, pushes=False)
    for message in (push("a"), Flush(group="coding", before_ms=1), push("b")):
        published = await node.bus.publish(message)
    await eventually(lambda: worker.bus.position == published.seq)
    assert [entry.message.kind for entry in worker.given] == ["flush"]
    assert worker.counted("received") == 3


async def test_those_who_publish_together_share_round_trips(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    published = await asyncio.gather(*(node.bus.publish(push(str(number))) for number in range(300)))
    await node.has(300)
    given = {text: entry.seq for text, entry in zip(node.texts(), node.given, strict=True)}
    assert [given[str(number)] for number in range(300)] == [said.seq for said in published]
    calls = node.metrics.registry.get_sample_value(
        "db_client_operation_duration_seconds_count", {"system": "redis", "operation": "bus_publish"}
    )
    assert calls is not None
    assert calls < 100


async def test_what_is_said_and_what_is_published_share_one_order(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    for number in range(40):
        one.bus.say(push(f"said {number}"))
        if number % 10 == 9:
            await one.bus.publish(push(f"published {number}"))
    await two.has(44)
    expected = [f"said {number}" for number in range(40)]
    for place, number in enumerate((9, 19, 29, 39)):
        expected.insert(number + 1 + place, f"published {number}")
    assert one.texts() == two.texts() == expected


async def test_what_is_said_at_any_time_costs_few_round_trips(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    for number in range(1000):
        node.bus.say(push(str(number)))
        await asyncio.sleep(0)
    await node.has(1000)
    assert node.texts() == [str(number) for number in range(1000)]
    calls = node.metrics.registry.get_sample_value(
        "db_client_operation_duration_seconds_count", {"system": "redis", "operation": "bus_publish"}
    )
    assert calls is not None
    assert calls < 50


async def test_what_was_said_until_the_end_is_told(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    one.bus.say(push("the last"))
    await one.bus.close()  # before `speak` had its turn
    await two.has(1)
    assert two.texts() == ["the last"]


async def test_a_bus_that_pauses_reads_together_what_came_meanwhile(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url, pause_s=0.2)
    for number in range(100):
        await one.bus.publish(push(str(number)))
    await two.has(100)
    assert two.texts() == [str(number) for number in range(100)]
    reads = two.metrics.registry.get_sample_value(
        "db_client_operation_duration_seconds_count", {"system": "redis", "operation": "bus_read"}
    )
    assert reads is not None
    assert reads < 20


async def test_every_kind_reaches_the_other_node(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    messages: list[AnyMessage] = [
        push("to two devices").model_copy(update={"users": frozenset({"ana"}), "devices": frozenset({"mobile"})}),
        Disconnect(user_id="ana", reason="by admin"),
        Blocked(subject="ana", until_s=1.5),
        Blocked(blocked="address", subject="192.0.2.0/24", until_s=1.5),
        Drain(node="node-1", rate=20),
    ]
    for message in messages:
        await one.bus.publish(message)
    await eventually(lambda: len(two.given) == 5)
    assert [entry.message for entry in two.given] == messages
    lag = two.metrics.registry.get_sample_value("atp_ws_delivery_lag_seconds_count", {"kind": "drain"})
    assert lag == 1


def test_a_block_as_older_nodes_told_it_is_of_a_user() -> None:
    old = b'{"id": "1", "kind": "blocked", "user_id": "ana", "until_s": 1.5, "reason": ""}'
    assert decode(old) == Blocked(id="1", blocked="user", subject="ana", until_s=1.5)
    assert decode(b'{"kind": "blocked", "blocked": "address", "subject": "nowhere", "until_s": 1}') is None


async def test_publishing_again_is_harmless(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    message = push("once")
    await node.bus.publish(message)
    await node.bus.publish(message)
    await node.bus.publish(push("last"))
    await node.has(2)
    assert node.texts() == ["once", "last"]
    assert node.counted("duplicate") == 1


async def test_what_is_not_ours_is_skipped_and_counted(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        for fields in (
            {"m": "{"},
            {"m": b"\xff"},
            {"other": "1"},
            {"m": '{"kind":"push","extra":1}'},
            {"m": "x" * 20_000},
        ):
            client.xadd(STREAM, fields)
    await node.bus.publish(push("after"))
    await node.has(1)
    assert node.texts() == ["after"]
    assert node.counted("malformed") == 5


async def test_an_expired_push_is_neither_delivered_nor_told_later(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    start = node.bus.position
    await node.bus.publish(push("old", expires_at_ms=1))
    await node.bus.publish(push("new"))
    await node.has(1)
    assert node.texts() == ["new"]
    assert node.missed(start) == ["new"]


async def test_a_fault_of_the_sockets_does_not_stop_the_bus(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)

    async def fail(entry: Entry) -> None:
        node.before_delivery = None
        raise RuntimeError("a fault")

    node.before_delivery = fail
    await node.bus.publish(push("first"))
    await node.bus.publish(push("second"))
    await node.has(1)
    assert node.texts() == ["second"]
    failures = node.metrics.registry.get_sample_value("atp_unhandled_exceptions_total", {"component": "background"})
    assert failures == 1


async def test_a_message_that_is_too_large_to_be_said_is_refused_at_once(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    with pytest.raises(ValueError, match="16384"):
        node.bus.say(push("x" * 16_384))


async def test_a_message_that_is_too_large_is_refused(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    with pytest.raises(ValueError, match="16384 bytes"):
        await node.bus.publish(push("x" * 20_000))


async def test_a_client_that_comes_back_to_another_node_is_told_what_it_missed(redis_url: str, nodes: BusNodes) -> None:
    one, two = await nodes.start(redis_url), await nodes.start(redis_url)
    said = [await one.bus.publish(push(str(number))) for number in range(5)]
    await one.bus.publish(Disconnect(user_id="ana"))
    await eventually(lambda: len(two.given) == 6)
    assert two.missed(str(said[2].seq)) == ["3", "4"]
    assert two.missed(str(said[4].seq)) == []
    assert two.missed(two.bus.position) == []


async def test_a_node_that_was_restarted_tells_what_was_missed_and_delivers_nothing_old(
    redis_url: str, nodes: BusNodes
) -> None:
    now_ms = int(time.time() * 1000)
    for age_s in (600, 400, 100, 10):
        write(redis_url, f"{now_ms - age_s * 1000}-0", f"{age_s} s ago")
    node = await nodes.start(redis_url)
    await eventually(lambda: node.bus.position == f"{now_ms - 10_000}-0")
    await node.bus.publish(push("now"))
    await node.has(1)
    assert node.texts() == ["now"]
    assert node.missed(f"{now_ms - 100_000}-0") == ["10 s ago", "now"]
    assert node.missed(f"{now_ms - 400_000}-0") == ["100 s ago", "10 s ago", "now"]
    assert node.missed(f"{now_ms - 600_000}-0") is None


async def test_a_place_in_the_near_future_gives_nothing_and_in_the_far_future_a_gap(
    redis_url: str, nodes: BusNodes
) -> None:
    node = await nodes.start(redis_url)
    now_ms = int(time.time() * 1000)
    assert node.missed(f"{now_ms + 5_000}-0") == []
    assert node.missed(f"{now_ms + 90_000}-0") is None


@pytest.mark.parametrize(
    "seq", ["", "1", "-", "1-", "a-0", "01-0", "1-0 ", "+1-0", "1-0\n", "\uff11-0", "1-99999999999999999999"]
)
async def test_what_is_no_seq_is_a_bad_request(nodes: BusNodes, seq: str) -> None:
    node = await nodes.start()
    with pytest.raises(BadRequest, match="no sequence number of ours"):
        node.bus.missed(seq)


async def test_an_idle_node_sends_redis_one_command_a_second(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url, probing=False)
    await node.bus.publish(push("connected"))
    await node.has(1)
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_commands_processed"]
        await asyncio.sleep(2.0)
        sent = client.info("stats")["total_commands_processed"] - before
    assert 2 <= sent <= 4  # one of them is this question


async def test_a_node_that_fell_far_behind_tells_of_the_gap_and_goes_on(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    await node.bus.publish(push("read"))
    await node.has(1)
    with redis.Redis.from_url(redis_url) as client:
        # The node shares this loop: it reads nothing until the stream is cut.
        seqs = [client.xadd(STREAM, {"m": encode(push(str(number)))}).decode() for number in range(650)]
        client.xtrim(STREAM, maxlen=300, approximate=False)
    await eventually(lambda: node.texts()[-1:] == ["649"])
    assert node.gaps == 1
    assert node.texts()[-300:] == [str(number) for number in range(350, 650)]
    assert node.missed(seqs[0]) is None
    assert node.missed(seqs[400]) == [str(number) for number in range(401, 650)]


async def test_what_made_room_for_newer_entries_is_not_said_again(
    redis_url: str, nodes: BusNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.live.bus_redis.STREAM_LENGTH", 100)
    node = await nodes.start(redis_url)
    for number in range(450):
        await node.bus.publish(push(str(number)))
    await node.has(450)
    await node.bus.recovered()
    await node.bus.publish(push("last"))
    await node.has(451)
    assert node.counted("duplicate") == 0


async def test_a_stream_that_was_emptied_in_silence_is_noticed_by_the_next_check(
    redis_url: str, nodes: BusNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await nodes.start(redis_url)
    seq = (await node.bus.publish(push("kept"))).seq
    await node.has(1)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(STREAM)
        monkeypatch.setattr("service.live.bus_reader.CHECK_EVERY_S", 0.0)
        await eventually(lambda: node.gaps == 1)
        monkeypatch.setattr("service.live.bus_reader.CHECK_EVERY_S", 60.0)
        assert node.missed(str(seq)) is None
        await eventually(lambda: client.xlen(STREAM) == 1)  # said again, for nodes that had not read it
    await node.bus.publish(push("more"))
    await node.has(2)
    assert node.texts() == ["kept", "more"]
    assert node.gaps == 1


async def test_it_works_over_sentinels(sentinel_trio: SentinelTrio, nodes: BusNodes) -> None:
    await says_and_resumes(sentinel_trio.url, nodes)


async def test_it_works_over_a_cluster(redis_cluster: Cluster, nodes: BusNodes) -> None:
    await says_and_resumes(redis_cluster.url, nodes)


async def says_and_resumes(url: str, nodes: BusNodes) -> None:
    settings = {"redis_request_timeout": 2, "redis_socket_timeout": 5}
    one, two = await nodes.start(url, **settings), await nodes.start(url, **settings)
    said = [await one.bus.publish(push(text)) for text in ("a", "b")]
    await two.has(2)
    assert two.texts() == ["a", "b"]
    assert two.missed(str(said[0].seq)) == ["b"]


async def test_reads_end_before_their_deadline_however_short_it_is(redis_url: str) -> None:
    settings, metrics = load(redis_url=redis_url), Metrics()
    state, reading = RedisState(settings, metrics), RedisState(settings, metrics, 0.3)
    assert await RedisBusLog(state, reading).read(Seq(0)) == []
    await state.close()
    await reading.close()


async def test_a_run_that_ended_and_began_again_goes_on_where_it_was(redis_url: str, nodes: BusNodes) -> None:
    node = await nodes.start(redis_url)
    await node.bus.publish(push("a"))
    await node.has(1)
    assert node.running
    await end(node.running)
    await node.bus.publish(push("b"))
    again = asyncio.create_task(node.bus.run())
    await node.has(2)
    assert node.texts() == ["a", "b"]
    await end(again)
