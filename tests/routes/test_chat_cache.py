"""Chats and the cache: hits, what goes past it, replayed streams, one call for a crowd, and what is counted."""

import asyncio
import json
from typing import Any

import httpx2

from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream
from tests.waiting import eventually

FRANCE = {"agent": "reasoning", "task": "What is the capital of France?", "model": "good"}
Asking = asyncio.Task[httpx2.Response]
NOTHING = {"input_tokens": 0, "output_tokens": 0, "estimated": False}


async def streamed(node: RunningNode, body: dict[str, Any]) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    async with node.http.stream("POST", "/api/v1/chat", json={**body, "stream": True}) as response:
        text = (await response.aread()).decode()
    pairs = [block.split("\n") for block in text.strip().split("\n\n")]
    events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]
    return response.headers, events


async def test_the_second_answer_comes_from_the_cache_and_uses_no_tokens(
    node: RunningNode, model_server: Upstream
) -> None:
    first = await node.http.post("/api/v1/chat", json=FRANCE)
    second = await node.http.post("/api/v1/chat", json=FRANCE)
    assert (first.headers["x-cache"], "age" in first.headers, first.json()["cached"]) == ("MISS", False, False)
    assert (second.headers["x-cache"], second.headers["age"], second.json()["cached"]) == ("HIT", "0", True)
    assert second.json()["answer"] == first.json()["answer"] == "Paris is the capital."
    assert second.json()["usage"] == NOTHING
    assert second.json()["id"] != first.json()["id"]
    assert len(model_server.bodies) == 1
    rows = await node.rows('SELECT cached, tokens_in, tokens_out, status FROM api_usage ORDER BY "timestamp"')
    assert rows == [(False, 7, 4, 200), (True, 0, 0, 200)]


async def test_anything_that_changes_the_answer_is_another_question(node: RunningNode, model_server: Upstream) -> None:
    for change in (
        {},
        {"agent": "coding"},
        {"task": "And of Spain?"},
        {"model": "no-usage"},
        {"parameters": {"seed": 1}},
    ):
        assert (await node.http.post("/api/v1/chat", json=FRANCE | change)).headers["x-cache"] == "MISS"
    assert len(model_server.bodies) == 5


async def test_no_cache_asks_anew_and_keeps_that_answer_while_no_store_keeps_nothing(
    node: RunningNode, model_server: Upstream
) -> None:
    for directive, calls in (("no-store", 1), ("no-cache", 2)):
        response = await node.http.post("/api/v1/chat", json=FRANCE, headers={"cache-control": directive})
        assert (response.headers["x-cache"], len(model_server.bodies)) == ("BYPASS", calls)
    assert (await node.http.post("/api/v1/chat", json=FRANCE)).headers["x-cache"] == "HIT"
    assert len(model_server.bodies) == 2


async def test_a_known_answer_is_replayed_as_a_stream(node: RunningNode, model_server: Upstream) -> None:
    headers, live = await streamed(node, FRANCE)
    assert headers["x-cache"] == "MISS"
    headers, replayed = await streamed(node, FRANCE)
    assert (headers["x-cache"], headers["age"]) == ("HIT", "0")
    text = ["".join(data["text"] for name, data in events if name == "delta") for events in (live, replayed)]
    assert text == ["Paris is the capital."] * 2
    assert [name for name, _ in replayed] == ["delta", "answer", "done"]
    assert replayed[-1][1]["usage"] == NOTHING
    whole = await node.http.post("/api/v1/chat", json=FRANCE)
    assert whole.headers["x-cache"] == "HIT"
    assert len(model_server.bodies) == 1


async def test_errors_and_cut_streams_are_not_kept(node: RunningNode, model_server: Upstream) -> None:
    for _ in range(2):
        assert (await node.http.post("/api/v1/chat", json=FRANCE | {"model": "dies"})).status_code == 502
        _, events = await streamed(node, FRANCE | {"model": "breaks-off"})
        assert [name for name, _ in events][-2:] == ["error", "done"]
    assert len(model_server.bodies) == 4


async def test_a_crowd_that_asks_the_same_on_two_nodes_is_one_call_to_the_model(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server)
    body = FRANCE | {"model": "slow"}
    async with running(settings) as one, running(settings) as two:
        answers = await asyncio.gather(*(node.http.post("/api/v1/chat", json=body) for node in (one, two) * 20))
    assert {answer.json()["answer"] for answer in answers} == {"Paris is the capital."}
    assert len(model_server.bodies) == 1
    assert sum(answer.json()["usage"]["input_tokens"] for answer in answers) == 7


async def leader_and_joiner(node: RunningNode, model_server: Upstream) -> tuple[Asking, Asking]:
    """Two who ask a slow model the same: the first began the call, the second shares it."""
    body = FRANCE | {"model": "slow"}
    leader = asyncio.create_task(node.http.post("/api/v1/chat", json=body))
    await eventually(lambda: model_server.open == 1)
    joiner = asyncio.create_task(node.http.post("/api/v1/chat", json=body))
    await eventually(lambda: _active(node, 2))
    return leader, joiner


async def test_one_who_leaves_does_not_end_the_call_that_others_wait_for(
    node: RunningNode, model_server: Upstream
) -> None:
    leaver, stayer = await leader_and_joiner(node, model_server)
    leaver.cancel()
    assert (await stayer).json()["answer"] == "Paris is the capital."
    assert (len(model_server.bodies), model_server.ended_early) == (1, 0)


async def _active(node: RunningNode, count: int) -> bool:
    return await node.metric("http_server_active_requests") == count


async def test_each_of_several_agents_is_known_by_itself(node: RunningNode, model_server: Upstream) -> None:
    body = {"agents": ["reasoning", "coding"], "task": FRANCE["task"], "model": "good"}
    first = await node.http.post("/api/v1/chat", json=body)
    assert [answer["cached"] for answer in first.json()["answers"]] == [False, False]
    await node.http.post("/api/v1/chat", json=body | {"agents": ["coding", "summary"]})
    assert len(model_server.bodies) == 3
    assert first.headers["x-cache"] == "MISS"
    second = await node.http.post("/api/v1/chat", json=body)
    assert [answer["cached"] for answer in second.json()["answers"]] == [True, True]
    assert second.headers["x-cache"] == "HIT"
    assert len(model_server.bodies) == 3


async def test_in_user_scope_nobody_is_given_anothers_answer(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, cache_scope="user")
    async with running(settings) as node:
        await node.new_user("somebody")
        key = await node.new_key("chat", user="somebody")
        assert (await node.http.post("/api/v1/chat", json=FRANCE)).headers["x-cache"] == "MISS"
        other = await node.http.post("/api/v1/chat", json=FRANCE, headers={"x-api-key": key})
        assert other.headers["x-cache"] == "MISS"
        assert (await node.http.post("/api/v1/chat", json=FRANCE)).headers["x-cache"] == "HIT"


async def test_while_redis_is_away_answers_are_known_on_this_node(database_url: str, model_server: Upstream) -> None:
    async with running(node_settings(database_url, "", model_server)) as node:
        assert (await node.http.post("/api/v1/chat", json=FRANCE)).headers["x-cache"] == "MISS"
        assert (await node.http.post("/api/v1/chat", json=FRANCE)).headers["x-cache"] == "HIT"


COSTS = 'SELECT status, cached, tokens_in, tokens_out FROM api_usage ORDER BY "timestamp"'


async def _rows(node: RunningNode, count: int) -> bool:
    return len(await node.rows(COSTS)) == count


async def test_when_the_one_who_began_a_call_leaves_whoever_reads_it_to_the_end_pays_for_it(
    node: RunningNode, model_server: Upstream
) -> None:
    leaver, stayer = await leader_and_joiner(node, model_server)
    leaver.cancel()
    await stayer
    await eventually(lambda: _rows(node, 2))
    assert await node.rows(COSTS) == [(499, False, 0, 0), (200, False, 7, 4)]


async def test_one_who_joins_a_call_and_leaves_pays_nothing(node: RunningNode, model_server: Upstream) -> None:
    first, joiner = await leader_and_joiner(node, model_server)
    joiner.cancel()
    await first
    await eventually(lambda: _rows(node, 2))
    assert sorted(await node.rows(COSTS)) == [(200, False, 7, 4), (499, False, 0, 0)]


async def test_no_store_in_a_second_header_line_counts_too(node: RunningNode, model_server: Upstream) -> None:
    headers = [("cache-control", "max-age=0"), ("cache-control", "no-store")]
    for _ in range(2):
        response = await node.http.post("/api/v1/chat", json=FRANCE, headers=headers)
        assert response.headers["x-cache"] == "BYPASS"
    assert len(model_server.bodies) == 2
