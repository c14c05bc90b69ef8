"""Flights of one node: who asks for the same shares one call, reads it at its own speed, and may leave."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator

import pytest

from service.cache.entry import digest
from service.errors import Unavailable, UpstreamError
from tests.cache.nodes import CacheNode, Call
from tests.waiting import eventually

who = contextvars.ContextVar("who", default="nobody")


async def test_a_miss_streams_every_piece_and_the_next_reader_hits_the_whole(alone: CacheNode) -> None:
    call = Call("to", "gether", "together")
    async with alone.open("a", call) as reader:
        assert reader.source.result == "miss"
        assert [item async for item in reader] == ["to", "gether", "together"]
    async with alone.open("a", call) as reader:
        assert reader.source.result == "hit"
        assert 0 <= reader.source.age_s < 5
        assert [item async for item in reader] == ["together"]
    assert call.begun == 1
    assert (alone.counted("miss"), alone.counted("hit")) == (1, 1)


async def test_all_who_ask_at_once_share_one_call(alone: CacheNode) -> None:
    call = Call("whole", go=False)
    asked = [asyncio.create_task(alone.ask("a", call)) for _ in range(100)]
    await eventually(lambda: call.begun == 1)
    call.go.set()
    answers = await asyncio.gather(*asked)
    assert answers[0] == ("whole", "miss")
    assert set(answers[1:]) == {("whole", "shared")}
    assert (call.begun, call.ended) == (1, 1)


async def test_a_late_reader_of_a_stream_gets_it_from_the_start(alone: CacheNode) -> None:
    call = Call("to", "gether", "together", go=False)
    async with alone.open("a", call) as early:
        assert [await anext(early), await anext(early)] == ["to", "gether"]
        async with alone.open("a", call) as late:
            assert late.source.result == "shared"
            assert [await anext(late), await anext(late)] == ["to", "gether"]
            call.go.set()
            assert await anext(late) == "together"
        assert await anext(early) == "together"


async def test_a_reader_that_does_not_read_holds_up_nobody(alone: CacheNode) -> None:
    pieces = [str(number) for number in range(1000)]
    call = Call(*pieces, "whole", go=False)
    async with alone.open("a", call) as slow:
        quick = asyncio.create_task(alone.ask("a", call))
        await eventually(lambda: alone.counted("shared") == 1)
        call.go.set()
        assert await quick == ("whole", "shared")
        assert [item async for item in slow] == [*pieces, "whole"]


async def test_one_who_leaves_leaves_the_others_alone_and_the_last_ends_the_call(alone: CacheNode) -> None:
    call = Call("piece", "whole", go=False)
    async with alone.open("a", call) as stays:
        async with alone.open("a", call) as leaves:
            assert await anext(leaves) == "piece"
        assert await anext(stays) == "piece"
        assert call.ended == 0
    await eventually(lambda: call.ended == 1)
    call.go.set()
    assert await alone.ask("a", call) == ("whole", "miss")
    assert call.begun == 2


async def test_one_who_is_cancelled_while_waiting_to_know_the_source_leaves_too(
    first: CacheNode, second: CacheNode
) -> None:
    held = Call(go=False)
    async with first.open("a", held):
        waiting = asyncio.create_task(second.ask("a", Call()))
        await eventually(lambda: len(second.flights._flying) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await eventually(lambda: not second.flights._tasks)


async def test_a_new_reader_after_the_last_has_left_begins_anew(alone: CacheNode) -> None:
    first, again = Call(go=False), Call("again")
    async with alone.open("a", first):
        await eventually(lambda: first.begun == 1)
    assert await alone.ask("a", again) == ("again", "miss")


async def test_an_error_reaches_every_reader_after_the_pieces_and_is_not_kept(alone: CacheNode) -> None:
    call = Call("piece", "whole", go=False, failure=UpstreamError("The model server failed."))
    async with alone.open("a", call) as one, alone.open("a", call) as other:
        assert [await anext(one), await anext(other)] == ["piece", "piece"]
        call.go.set()
        for reader in (one, other):
            with pytest.raises(UpstreamError, match="The model server failed"):
                await anext(reader)
    assert await alone.ask("a", Call("whole")) == ("whole", "miss")


async def test_one_failed_call_is_the_failure_of_all_who_asked_at_once(alone: CacheNode) -> None:
    call = Call(go=False, failure=UpstreamError())
    asked = [asyncio.create_task(alone.ask("a", call)) for _ in range(10)]
    await eventually(lambda: call.begun == 1)
    call.go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [UpstreamError] * 10
    assert call.begun == 1


async def test_an_error_before_the_first_piece_is_raised_where_the_piece_would_be(alone: CacheNode) -> None:
    async with alone.open("a", Call(failure=UpstreamError())) as reader:
        with pytest.raises(UpstreamError):
            await anext(reader)


async def test_an_error_nobody_foresaw_reaches_the_readers_too(alone: CacheNode) -> None:
    with pytest.raises(ZeroDivisionError):
        await alone.ask("a", Call(failure=ZeroDivisionError()))


async def test_a_call_that_gives_nothing_is_an_end_without_items(alone: CacheNode) -> None:
    async def nothing() -> AsyncGenerator[str, None]:
        return
        yield

    async with alone.flights.open(digest("a"), "agent_response", (), 60, nothing) as reader:
        assert [item async for item in reader] == []
        with pytest.raises(EOFError):
            await reader.final()


async def test_what_is_not_cacheable_is_not_kept(alone: CacheNode) -> None:
    assert await alone.ask("a", Call("cut")) == ("cut", "miss")
    assert await alone.ask("a", Call("whole")) == ("whole", "miss")


async def test_what_is_larger_than_the_limit_is_not_kept(alone: CacheNode) -> None:
    call = Call("x" * 1_000_001)
    await alone.ask("a", call)
    await alone.ask("a", call)
    assert call.begun == 2


async def test_a_reader_who_does_not_want_the_cached_answer_gets_its_own_which_is_kept(alone: CacheNode) -> None:
    assert await alone.ask("a", Call("old")) == ("old", "miss")
    assert await alone.ask("a", Call("new"), read=False) == ("new", "bypass")
    assert await alone.ask("a", Call("never")) == ("new", "hit")
    assert alone.counted("bypass") == 1


async def test_a_reader_who_wants_nothing_stored_gets_its_own_which_is_not(alone: CacheNode) -> None:
    secret = Call("secret")
    assert await alone.ask("a", secret, write=False) == ("secret", "bypass")
    assert await alone.ask("a", Call("whole")) == ("whole", "miss")
    assert await alone.ask("a", secret, write=False) == ("secret", "bypass")
    assert secret.begun == 2


async def test_readers_who_bypass_the_cache_join_no_flight_and_are_joined_by_none(alone: CacheNode) -> None:
    shared, own = Call("shared", go=False), Call("own", go=False)
    async with alone.open("a", shared) as one, alone.open("a", own, read=False) as other:
        await eventually(lambda: (shared.begun, own.begun) == (1, 1))
        async with alone.open("a", own) as third:
            assert (one.source.result, other.source.result, third.source.result) == ("miss", "bypass", "shared")
    assert (shared.begun, own.begun) == (1, 1)


async def test_the_call_runs_in_the_context_of_its_first_reader(alone: CacheNode) -> None:
    async def tell() -> AsyncGenerator[str, None]:
        yield who.get()

    who.set("ana")
    async with alone.flights.open(digest("a"), "agent_response", (), 60, tell) as reader:
        assert await reader.final() == "ana"


async def test_an_entry_of_another_version_is_a_miss_and_is_overwritten(alone: CacheNode) -> None:
    assert await alone.ask("a", Call("?")) == ("?", "miss")
    assert await alone.ask("a", Call("whole")) == ("whole", "miss")
    assert await alone.ask("a", Call()) == ("whole", "hit")


async def test_a_node_that_stops_ends_its_calls_and_tells_their_readers(alone: CacheNode) -> None:
    call = Call(go=False)
    async with alone.open("a", call) as reader:
        await alone.flights.close()
        assert call.ended == 1
        with pytest.raises(Unavailable, match="stopping"):
            await anext(reader)


async def test_no_flight_is_left_over(alone: CacheNode) -> None:
    await asyncio.gather(*(alone.ask(str(number % 5), Call()) for number in range(50)))
    await eventually(lambda: not alone.flights._tasks and not alone.flights._flying)
