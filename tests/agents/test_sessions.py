"""Conversations: the same contract over memory, Redis, a cluster, and Redis that goes away in the middle."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.agents.messages import Message
from service.agents.session_records import Bounds, Exchange, Place, SessionInfo, Turn
from service.agents.sessions import Sessions
from service.agents.sessions_memory import MemorySessions
from service.errors import BadRequest, Invalid, NotFound
from tests.agents.conversations import BOUNDS, NOON, Desk, Desks, cut, exchange, keys_of, listed, mend, said
from tests.redis_topologies import Cluster
from tests.servers import OwnValkey
from tests.waiting import eventually


@pytest.fixture
async def desks() -> AsyncIterator[Desks]:
    async with AsyncExitStack() as stack:
        yield Desks(stack)


@pytest.fixture(params=["memory", "redis", "cluster"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Where conversations are kept; empty for memory alone."""
    if request.param != "cluster":
        return str(request.getfixturevalue("redis_url")) if request.param == "redis" else ""
    cluster: Cluster = request.getfixturevalue("redis_cluster")
    for node in cluster.nodes:
        with Redis.from_url(node.url) as client:
            client.flushall()
    return cluster.url


@pytest.fixture
async def sessions(any_url: str, desks: Desks) -> Desk:
    return await desks.start(any_url, watch=False)


async def test_a_conversation_is_told_in_the_order_it_was_held(sessions: Desk) -> None:
    assert await sessions.history("ana", "s") == []
    await sessions.append("ana", "s", exchange("one", "1a", "1b"))
    await sessions.append("ana", "s", exchange("two"))
    assert await sessions.history("ana", "s") == [
        Message("user", "one"),
        Message("assistant", "1a"),
        Message("assistant", "1b"),
        Message("user", "two"),
        Message("assistant", "re: two"),
    ]


async def test_reading_shows_who_answered_and_when(sessions: Desk) -> None:
    await sessions.append("ana", "años/ 1", exchange("¿qué?"))
    kept = await sessions.read("ana", "años/ 1")
    assert kept.info == SessionInfo("años/ 1", NOON, NOON + 1, 2, "¿qué?")
    assert kept.turns == (Turn("user", "¿qué?", "", NOON), Turn("assistant", "re: ¿qué?", "reasoning", NOON + 1))


async def test_the_title_is_the_first_eighty_characters_of_the_first_task(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("x" * 79 + "yz"))
    for number in range(3):
        await sessions.append("ana", "s", exchange(str(number)))
    kept = await sessions.read("ana", "s")
    assert kept.info.title == "x" * 79 + "y"
    assert kept.turns[0].content == "0"


async def test_half_a_surrogate_pair_is_kept_as_a_question_mark(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("\ud83d", "\ud83d"))
    assert (await said(sessions), await listed(sessions)) == (["?", "?"], ["s"])


async def test_the_same_id_of_two_users_is_two_conversations(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("ana's"))
    await sessions.append("ben", "s", exchange("ben's"))
    await sessions.delete("ana", "s")
    assert (await said(sessions), await said(sessions, "ben")) == ([], ["ben's", "re: ben's"])
    assert (await listed(sessions), await listed(sessions, "ben")) == ([], ["s"])


async def test_what_is_not_there_is_not_found(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("one"))
    for call in (sessions.read, sessions.delete):
        with pytest.raises(NotFound, match="no such session"):
            await call("ben", "s")
    await sessions.delete("ana", "s")
    with pytest.raises(NotFound):
        await sessions.delete("ana", "s")
    assert await said(sessions) == []


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "a\0b", "\ud83d"])
async def test_an_id_is_1_to_128_printable_characters(desks: Desks, name: str) -> None:
    sessions = await desks.start()
    for call in (sessions.history, sessions.read, sessions.delete):
        with pytest.raises(Invalid):
            await call("ana", name)
    with pytest.raises(Invalid):
        await sessions.append("ana", name, exchange("one"))


async def test_beyond_the_most_messages_whole_exchanges_go(sessions: Desk) -> None:
    for task, answers in (("one", "ab"), ("two", "c"), ("three", "d")):  # 3 + 2 + 2 messages, of 6
        await sessions.append("ana", "s", exchange(task, *answers))
    assert await said(sessions) == ["two", "c", "three", "d"]
    assert (await sessions.read("ana", "s")).info.messages == 4


async def test_beyond_the_most_bytes_whole_exchanges_go(sessions: Desk) -> None:
    for letter in "abc":
        await sessions.append("ana", "s", exchange(letter * 200, letter))
    assert [text[0] for text in await said(sessions)] == ["b", "b", "c", "c"]


TOO_LARGE = (exchange("x" * 2000), exchange("small", "x" * 2000), exchange("many", *"abcdef"))


async def test_an_exchange_beyond_the_bounds_by_itself_is_not_kept_and_those_before_it_are(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("before"))
    for turns in TOO_LARGE:
        await sessions.append("ana", "s", turns)
        kept = await sessions.read("ana", "s")
        assert kept.info == SessionInfo("s", NOON, NOON + 1, 2, "before")
        assert await said(sessions) == ["before", "re: before"]
    await sessions.append("ana", "s", exchange("after"))
    assert await said(sessions) == ["before", "re: before", "after", "re: after"]


async def test_an_exchange_beyond_the_bounds_by_itself_begins_no_conversation(sessions: Desk) -> None:
    for turns in TOO_LARGE:
        await sessions.append("ana", "s", turns)
    assert await listed(sessions) == []
    with pytest.raises(NotFound):
        await sessions.read("ana", "s")


async def test_the_oldest_make_room_until_a_large_exchange_fits(sessions: Desk) -> None:
    for task in ("one", "two", "x" * 600):
        await sessions.append("ana", "s", exchange(task, "re"))
    assert await said(sessions) == ["two", "re", "x" * 600, "re"]


async def test_beyond_the_most_conversations_those_silent_longest_go(sessions: Desk) -> None:
    for place, name in enumerate(["s1", "s2", "s3", "s1", "s4"]):
        await sessions.append("ana", name, exchange(name, at=NOON + place))
    await sessions.append("ben", "s2", exchange("ben's"))
    assert await listed(sessions) == ["s4", "s1", "s3"]
    await sessions.append("ana", "slow clock", exchange("one", at=NOON - 9))
    assert sorted(await listed(sessions)) == ["s1", "s4", "slow clock"]
    assert await said(sessions, session="s2") == []
    assert await listed(sessions, "ben") == ["s2"]


async def test_a_list_is_turned_page_by_page_the_newest_first(sessions: Desk) -> None:
    for name in ("s1", "s2", "s3"):
        await sessions.append("ana", name, exchange(name))  # at the same moment: digests decide
    first = (await sessions.page("ana", "", 2)).result
    second = (await sessions.page("ana", first.next_cursor, 2)).result
    assert (len(first.sessions), len(second.sessions), second.next_cursor) == (2, 1, "")
    assert {info.session_id for info in first.sessions + second.sessions} == {"s1", "s2", "s3"}
    await sessions.append("ana", "s1", exchange("later", at=NOON + 9))
    assert (await listed(sessions))[0] == "s1"
    whole = (await sessions.page("ana", "", 3)).result
    assert (len(whole.sessions), whole.next_cursor) == (3, "")


@pytest.mark.parametrize(("cursor", "limit"), [("x", 1), ("1.abc", 1), ("٣." + "0" * 64, 1), ("", 0), ("", 101)])
async def test_a_cursor_or_limit_that_is_none_is_refused(desks: Desks, cursor: str, limit: int) -> None:
    with pytest.raises(BadRequest):
        await (await desks.start()).page("ana", cursor, limit)


async def test_exchanges_that_end_at_once_are_each_kept_whole(sessions: Desk) -> None:
    await asyncio.gather(*(sessions.append("ana", "s", exchange(f"task {number}")) for number in range(3)))
    texts = await said(sessions)
    assert sorted(texts[::2]) == ["task 0", "task 1", "task 2"]
    assert texts[1::2] == [f"re: {task}" for task in texts[::2]]


async def test_an_answer_that_comes_after_the_deletion_begins_a_conversation_of_its_own(sessions: Desk) -> None:
    await sessions.append("ana", "s", exchange("before"))
    assert await said(sessions) == ["before", "re: before"]
    await sessions.delete("ana", "s")
    await sessions.append("ana", "s", exchange("during"))
    assert await said(sessions) == ["during", "re: during"]
    assert (await sessions.read("ana", "s")).info.title == "during"


async def test_a_write_that_is_repeated_counts_once(redis_url: str, desks: Desks) -> None:
    sessions = await desks.start(redis_url, watch=False)
    place, once = Place.of("ana", "s"), Exchange.of(exchange("one"))
    assert sessions._shared
    for store in (sessions._shared, sessions._shared, sessions.memory, sessions.memory):
        await store.append(place, "s", [once])
    assert await said(sessions) == ["one", "re: one"]  # memory's is handed over first, and is known
    assert sessions.memory.users() == set()


async def test_in_redis_a_conversation_ends_after_its_time_which_each_message_renews(
    redis_url: str, desks: Desks
) -> None:
    sessions = await desks.start(redis_url, replace(BOUNDS, ttl_s=1), watch=False)
    with Redis.from_url(redis_url) as client:
        await sessions.append("ana", "s", exchange("one"))
        await sessions.append("ana", "t", exchange("one"))
        conversation = next(key for key in keys_of(client) if Place.of("ana", "s").session in key)
        client.pexpire(conversation, 200)
        await sessions.append("ana", "s", exchange("two"))
        assert 500 < client.pttl(conversation) <= 1000  # type: ignore[operator]
        client.pexpire(conversation, 1)
        await eventually(lambda: not client.exists(conversation))
        assert await listed(sessions) == ["t"]
        with pytest.raises(NotFound):
            await sessions.read("ana", "s")
        await eventually(lambda: keys_of(client) == [], within_s=3)


async def test_in_memory_a_conversation_ends_after_its_time_which_each_message_renews() -> None:
    now = [0.0]
    memory = MemorySessions(BOUNDS, lambda: now[0])
    old, new = Place.of("ana", "old"), Place.of("ana", "new")
    for place in (old, new):
        await memory.append(place, "x", [Exchange.of(exchange("one"))])
    now[0] = 59.0
    await memory.append(new, "x", [Exchange.of(exchange("two"))])
    now[0] = 60.0
    assert await memory.read(old) is None
    assert len(await memory.page(new.user, None, 9)) == 1
    now[0] = 119.0
    assert (await memory.read(new), memory.users()) == (None, set())


async def test_memory_has_a_bound_for_all_users_together() -> None:
    bounds = replace(BOUNDS, bytes=10_000)
    memory = MemorySessions(bounds, kept_bytes=5000)
    for number in range(10):
        await memory.append(Place.of(f"user-{number}", "s"), "s", [Exchange.of(exchange("x" * 1000))])
    assert len(memory.users()) == 2
    assert memory.has(Place.of("user-9", "s").user)


async def test_names_of_keys_say_nothing(redis_url: str, desks: Desks) -> None:
    sessions = await desks.start(redis_url, watch=False)
    await sessions.append("usr_canary", "canary-session", exchange("canary"))
    with Redis.from_url(redis_url) as client:
        names = keys_of(client)
    assert len(names) == 2
    assert [name for name in names if "canary" in name] == []
    assert names[0].startswith("atp:{chat:")
    assert [len(name) for name in names] == [75, 140]


async def test_what_is_not_ours_in_redis_is_as_nothing(redis_url: str, desks: Desks) -> None:
    sessions = await desks.start(redis_url, watch=False)
    await sessions.append("ana", "s", exchange("one"))
    with Redis.from_url(redis_url) as client:
        list_key, conversation = keys_of(client)
        field = next(name for name in client.hkeys(conversation) if name.startswith(b"x"))  # type: ignore[union-attr]
        for name, value in ((field, "[{}]"), (field, '[{"role": "user", "content": "x", "at": 1e300}]')):
            client.hset(conversation, name, value)  # type: ignore[arg-type]
            assert await said(sessions) == []
        for name, value in ((b"created", "soon"), (b"last", "9" * 30), (b"id", b"\xff")):
            client.hset(conversation, name, value)  # type: ignore[arg-type]
            assert await listed(sessions) == []
        for key in (conversation, list_key):
            client.delete(key)
            client.set(key, "junk")
            assert (await listed(sessions)) == []
            await sessions.append("ana", "s", exchange("anew"))
            assert ((await said(sessions))[-2:], await listed(sessions)) == (["anew", "re: anew"], ["s"])


async def test_what_was_said_during_an_outage_follows_what_redis_had(redis_url: str, desks: Desks) -> None:
    here, there = await desks.start(redis_url, watch=False), await desks.start(redis_url, watch=False)
    await here.append("ana", "s", exchange("before"))
    cut(here)
    assert await said(here) == []
    await here.append("ana", "s", exchange("during"))
    await here.append("ana", "new", exchange("begun", at=NOON + 5))
    assert await said(here) == ["during", "re: during"]
    assert (await here.page("ana")).degraded
    assert await said(there) == ["before", "re: before"]
    await mend(here)
    await here.append("ana", "s", exchange("after", at=NOON + 9))
    for desk in (here, there):
        assert (await said(desk))[::2] == ["before", "during", "after"]
        assert await listed(desk) == ["s", "new"]
    assert here.memory.users() == set()


async def test_an_exchange_too_large_during_an_outage_costs_nothing_of_what_redis_had(
    redis_url: str, desks: Desks
) -> None:
    here, there = await desks.start(redis_url, watch=False), await desks.start(redis_url, watch=False)
    await here.append("ana", "s", exchange("before"))
    cut(here)
    await here.append("ana", "s", exchange("x" * 2000))
    await here.append("ana", "s", exchange("during"))
    await mend(here)
    await here.hand_over()
    assert (await said(there))[::2] == ["before", "during"]


async def test_what_was_deleted_during_an_outage_is_deleted_when_it_ends(redis_url: str, desks: Desks) -> None:
    here, there = await desks.start(redis_url, watch=False), await desks.start(redis_url, watch=False)
    for name in ("gone", "begun anew"):
        await here.append("ana", name, exchange("before"))
    cut(here)
    await here.delete("ana", "gone")
    await here.delete("ana", "begun anew")
    with pytest.raises(NotFound):
        await here.read("ana", "gone")
    await here.append("ana", "begun anew", exchange("during"))
    await mend(here)
    await here.hand_over()
    assert await listed(there) == ["begun anew"]
    assert await said(there, session="begun anew") == ["during", "re: during"]


async def test_a_node_that_stops_hands_over_first_but_waits_for_no_silent_redis(
    own_valkey: OwnValkey, desks: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await desks.start(own_valkey.url, watch=False), await desks.start(own_valkey.url, watch=False)
    cut(here)
    await here.append("ana", "s", exchange("one"))
    await mend(here)
    await here.close()
    assert await said(there) == ["one", "re: one"]
    cut(here)
    await here.append("ana", "s", exchange("two"))
    await mend(here)
    own_valkey.freeze()
    monkeypatch.setattr("service.agents.sessions.CLOSE_TIMEOUT_S", 0.1)
    started = time.monotonic()
    await here.close()
    assert time.monotonic() - started < 1
    own_valkey.thaw()


async def test_one_user_of_whom_redis_takes_nothing_holds_up_no_other(redis_url: str, desks: Desks) -> None:
    with Redis.from_url(redis_url) as client:
        refused = f"{{chat:{Place.of('eve', 's').user}}}"
        client.acl_setuser("half", enabled=True, passwords=["+half"], commands=["+@all"], keys=["atp:*"])
        sessions = await desks.start(re.sub("//.*@", "//half:half@", redis_url), watch=False)
        cut(sessions)
        for user in ("ana", "ben", "eve"):
            await sessions.append(user, "s", exchange(user))
        allowed = [f"atp:*{Place.of(user, 's').user}*" for user in ("ana", "ben")]
        client.acl_setuser("half", enabled=True, reset_keys=True, keys=[*allowed, "atp:probe"])
        await mend(sessions)
        await sessions.hand_over()
        assert sessions.memory.users() == {Place.of("eve", "s").user}
        assert await said(sessions, "eve") == ["eve", "re: eve"]
        assert [key for key in keys_of(client) if refused in key] == []
        client.acl_deluser("half")


async def test_redis_killed_in_the_middle_costs_no_exchange_that_this_node_heard(
    own_valkey: OwnValkey, desks: Desks
) -> None:
    bounds = Bounds(ttl_s=60, messages=1000, bytes=1_000_000, sessions_per_user=9)
    sessions = await desks.start(own_valkey.url, bounds)
    for number in range(30):
        if number == 10:
            await own_valkey.kill()
        if number == 20:
            await own_valkey.restart()
        await sessions.append("ana", "s", exchange(str(number)))
        await asyncio.sleep(0)
    await eventually(lambda: sessions.memory.users() == set(), within_s=8)
    heard = (await said(sessions))[::2]
    assert heard[-20:] == [str(number) for number in range(10, 30)]
    assert heard == [str(number) for number in range(30 - len(heard), 30)]


async def test_a_frozen_redis_delays_a_conversation_by_less_than_a_second(own_valkey: OwnValkey, desks: Desks) -> None:
    sessions = await desks.start(own_valkey.url, replace(BOUNDS, sessions_per_user=9))
    await sessions.append("ana", "s", exchange("before"))
    own_valkey.freeze()
    started = time.monotonic()
    await asyncio.gather(*(sessions.append("ana", f"{number}", exchange("during")) for number in range(3)))
    assert await said(sessions, session="0") == ["during", "re: during"]
    assert time.monotonic() - started < 1.5
    own_valkey.thaw()
    await eventually(lambda: sessions.memory.users() == set(), within_s=8)
    assert await said(sessions, session="0") == ["during", "re: during"]  # heard by the frozen one, and by memory: once
    assert await said(sessions, session="2") == ["during", "re: during"]


async def test_operations_are_timed_by_name(redis_url: str, desks: Desks) -> None:
    sessions = await desks.start(redis_url, watch=False)
    await sessions.append("ana", "s", exchange("one"))
    await said(sessions)
    await listed(sessions)
    await sessions.delete("ana", "s")
    for operation in ("session_append", "session_history", "session_page", "session_delete"):
        labels = {"system": "redis", "operation": operation}
        counted = sessions.metrics.registry.get_sample_value("db_client_operation_duration_seconds_count", labels)
        assert counted == 1, operation


Told = list[tuple[int, str]]  # of each exchange: how many answers, and its letter
EXCHANGES = st.lists(st.tuples(st.integers(0, 4), st.text('aé😀\x00"', max_size=60)), max_size=12)


def suffix_within(bounds: Bounds, told: list[list[Turn]]) -> list[list[Turn]]:
    """As many whole exchanges from the end as fit, by trying them all."""
    for start in range(len(told) + 1):
        rest = told[start:]
        size = sum(len(Exchange.of(turns).data) for turns in rest)
        if sum(map(len, rest)) <= bounds.messages and size <= bounds.bytes:
            return rest
    raise AssertionError("nothing always fits")


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_history_is_always_the_longest_end_of_the_exchanges_that_fit_within_the_bounds(
    redis_url: str, where: str
) -> None:
    bounds = replace(BOUNDS, bytes=700)

    async def hold(told: Told) -> None:
        async with AsyncExitStack() as stack:
            sessions: Sessions = await Desks(stack).start(redis_url if where == "redis" else "", bounds, watch=False)
            exchanges = [exchange(text, *[text] * answers) for answers, text in told]
            for number, turns in enumerate(exchanges):
                await sessions.append("ana", "s", turns)
                fitting = [one for one in exchanges[: number + 1] if suffix_within(bounds, [one])]
                kept = suffix_within(bounds, fitting)
                assert await said(sessions) == [turn.content for turns in kept for turn in turns]
                size = sum(len(turn.content.encode()) for turns in kept for turn in turns)
                assert size <= bounds.bytes
            if any(suffix_within(bounds, [one]) for one in exchanges):  # else there never was one
                await sessions.delete("ana", "s")

    @settings(max_examples=40, deadline=None)
    @given(EXCHANGES)
    @example([(4, "😀" * 60)])  # too large to be kept, and alone
    def check(told: Told) -> None:
        asyncio.run(hold(told))

    check()
