"""Streams: the caller's key ends, and what it holds ends with a word; other cancellations stay what they are."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from service.db.pool import one_connection
from service.errors import KeyEnded
from service.http.disconnect import ClientGone, until_gone
from service.http.streams import Streams
from service.keys import issuing
from service.keys.verifier import Identity
from tests.http.streaming import parsed, tiny
from tests.http.test_disconnect import Client
from tests.waiting import eventually

KEY = b"k" * 32
ANA = Identity(KEY, "aaaaaaaa", "ana", "user", frozenset({"chat"}), None)


def ends(streams: Streams, reason: str = "revoked", key_hash: bytes = KEY) -> None:
    asyncio.get_running_loop().call_later(0.01, streams.close_keys, {key_hash: reason})


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_key_that_ends_cancels_the_block_and_says_why() -> None:
    streams = Streams()
    ends(streams, "expired")
    with pytest.raises(KeyEnded) as ended:
        async with streams.held(ANA):
            await asyncio.sleep(60)
    assert (ended.value.status, ended.value.code, ended.value.extra) == (401, "unauthorized", {"reason": "expired"})
    assert cancelling() == 0
    assert len(streams) == 0


async def test_another_keys_end_is_nothing_to_the_block() -> None:
    streams = Streams()
    async with streams.held(ANA):
        assert streams.close_keys({b"o" * 32: "revoked"}) == 0
        await asyncio.sleep(0)
    assert streams.key_hashes() == set()


async def test_every_request_of_the_key_ends_and_each_is_counted_once() -> None:
    streams, ended = Streams(), []

    async def work() -> None:
        with suppress(KeyEnded):
            async with streams.held(ANA):
                await asyncio.sleep(60)
        ended.append(cancelling())

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await eventually(lambda: len(streams) == 3)
    assert streams.holds(KEY)
    assert streams.close_keys({KEY: "revoked"}) == 3
    assert streams.close_keys({KEY: "revoked"}) == 0
    await asyncio.gather(*tasks)
    assert ended == [0, 0, 0]
    assert not streams.holds(KEY)


async def test_a_cancellation_from_outside_stays_one_even_with_the_keys_end() -> None:
    streams = Streams()

    async def work() -> None:
        async with streams.held(ANA):
            await asyncio.sleep(60)

    for both in (False, True):
        task = asyncio.create_task(work())
        await eventually(lambda: streams.holds(KEY))
        if both:
            streams.close_keys({KEY: "revoked"})
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_deadlines_inside_and_around_are_timeouts() -> None:
    streams = Streams()
    async with streams.held(ANA):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), streams.held(ANA):
            await asyncio.sleep(60)
    ends(streams)
    with pytest.raises(KeyEnded):
        async with asyncio.timeout(60), streams.held(ANA), asyncio.timeout(60):
            await asyncio.sleep(60)


async def test_with_until_gone_each_ends_the_block_for_its_own_reason() -> None:
    streams, client = Streams(), Client()
    ends(streams)
    with pytest.raises(KeyEnded):
        async with until_gone(client.receive), streams.held(ANA):
            await asyncio.sleep(60)
    asyncio.get_running_loop().call_later(0.01, client.left.set)
    with pytest.raises(ClientGone):
        async with streams.held(ANA), until_gone(client.receive):
            await asyncio.sleep(60)
    assert cancelling() == 0


async def test_a_block_that_ends_otherwise_leaves_no_cancellation_behind() -> None:
    streams = Streams()
    ends(streams)
    async with streams.held(ANA):
        with suppress(asyncio.CancelledError):  # as a library might
            await asyncio.sleep(60)
    assert cancelling() == 0
    async with asyncio.timeout(60):
        await asyncio.sleep(0)


async def test_each_request_of_a_key_is_told_with_the_end_it_knows() -> None:
    streams, told = Streams(), []
    streams.on_held = lambda key_hash, ends_at: told.append((key_hash, ends_at))
    async with streams.held(ANA), streams.held(replace(ANA, ends_at=5.0)):
        assert told == [(KEY, None), (KEY, 5.0)]


async def a_key(dsn: str) -> str:
    async with one_connection(dsn) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
        return (await issuing.create_key(connection, "ana", "test", ["chat"])).text


async def test_a_stream_ends_with_an_error_event_and_properly(database_url: str) -> None:
    key, streams = await a_key(database_url), Streams()
    async with tiny(database_url, streams) as door:
        headers = {"x-api-key": key, "x-request-id": "request-1"}
        async with door.http.stream("GET", "/stream", headers=headers) as response:
            chunks = response.aiter_text()
            first = await anext(chunks)
            streams.close_keys(dict.fromkeys(streams.key_hashes(), "revoked"))
            rest = "".join([chunk async for chunk in chunks])
        assert parsed(first) == [("delta", {"text": "first"})]
        ((name, problem),) = parsed(rest)
        assert name == "error"
        assert problem == {
            "type": "urn:atp:problem:unauthorized",
            "title": "A valid API key is needed",
            "status": 401,
            "detail": "The API key came to its end while this was under way.",
            "request_id": "request-1",
            "reason": "revoked",
        }
        assert door.closed == 1


async def test_an_answer_that_has_not_begun_is_a_401(database_url: str) -> None:
    key, streams = await a_key(database_url), Streams()
    async with tiny(database_url, streams) as door:
        asking = asyncio.create_task(door.http.get("/whole", headers={"x-api-key": key}))
        await eventually(lambda: len(streams) == 1)
        streams.close_keys(dict.fromkeys(streams.key_hashes(), "inactive_user"))
        response = await asking
        assert (response.status_code, response.json()["reason"]) == (401, "inactive_user")
        assert response.headers["www-authenticate"] == 'Bearer realm="atp"'


async def test_a_client_that_leaves_gives_its_place_back(database_url: str) -> None:
    key, streams = await a_key(database_url), Streams()
    async with tiny(database_url, streams) as door:
        async with door.http.stream("GET", "/stream", headers={"x-api-key": key}) as response:
            await anext(response.aiter_text())
            assert len(streams) == 1
        await eventually(lambda: len(streams) == 0)
        assert door.closed == 1
