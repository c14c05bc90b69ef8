"""POST /api/v1/chat/batch: every task answered or failed in its place, each with its row."""

import asyncio

from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream
from tests.waiting import eventually


async def test_every_task_is_answered_or_fails_in_its_place(node: RunningNode) -> None:
    tasks = [
        {"agent": "reasoning", "task": "One?", "model": "good"},
        {"agent": "nobody", "task": "Two?"},
        {"agent": "reasoning", "task": "Three?", "model": "dies"},
        {"agents": ["coding", "summary"], "task": "Four?", "model": "good"},
    ]
    response = await node.http.post("/api/v1/chat/batch", json={"requests": tasks})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [(item["index"], item["status"]) for item in results] == [(0, 200), (1, 404), (2, 502), (3, 200)]
    assert results[0]["answer"] == "Paris is the capital."
    assert results[1]["error"]["type"] == "urn:atp:problem:not-found"
    assert results[2]["error"]["type"] == "urn:atp:problem:upstream-error"
    assert [item["agent"] for item in results[3]["answers"]] == ["coding", "summary"]


async def test_every_task_that_reached_a_model_leaves_a_row_of_its_own(node: RunningNode) -> None:
    tasks = [{"agent": "reasoning", "task": f"{number}?", "model": "good"} for number in range(5)]
    sent = await node.http.post("/api/v1/chat/batch", json={"requests": tasks}, headers={"x-request-id": "batch-one"})
    rows = await node.rows("SELECT id::text FROM api_usage WHERE request_id = 'batch-one' AND tokens_in = 7")
    assert {row[0] for row in rows} == {item["id"] for item in sent.json()["results"]}
    assert len(rows) == 5


async def test_a_batch_is_bounded(node: RunningNode, model_server: Upstream) -> None:
    tasks = [{"agent": "reasoning", "task": "?", "model": "good"}] * 21
    assert (await node.http.post("/api/v1/chat/batch", json={"requests": tasks})).status_code == 422
    assert (await node.http.post("/api/v1/chat/batch", json={"requests": []})).status_code == 422
    assert model_server.bodies == []


async def test_a_batch_counts_as_many_chats_and_is_refused_whole(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, rate_limit_chat="5/minute")
    tasks = [{"agent": "reasoning", "task": f"{number}?", "model": "good"} for number in range(4)]
    async with running(settings) as node:
        assert (await node.http.post("/api/v1/chat/batch", json={"requests": tasks})).status_code == 200
        limited = await node.http.post("/api/v1/chat/batch", json={"requests": tasks})
    assert (limited.status_code, limited.json()["policy"]) == (429, "chat")
    assert len(model_server.bodies) == 4


async def test_a_client_that_leaves_ends_every_call_of_its_batch(node: RunningNode, model_server: Upstream) -> None:
    tasks = [{"agent": "reasoning", "task": f"{number}?", "model": "silent"} for number in range(3)]
    asking = asyncio.create_task(node.http.post("/api/v1/chat/batch", json={"requests": tasks}))
    await eventually(lambda: model_server.open == 3)
    asking.cancel()
    await eventually(lambda: model_server.open == 0)

    async def rows() -> bool:
        return await node.rows("SELECT status, count(*)::int FROM api_usage GROUP BY status") == [(499, 3)]

    await eventually(rows)


async def test_a_batch_that_can_never_fit_is_not_told_to_wait(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, rate_limit_chat="10/minute")
    tasks = [{"agent": "reasoning", "task": f"{number}?", "model": "good"} for number in range(11)]
    async with running(settings) as node:
        refused = await node.http.post("/api/v1/chat/batch", json={"requests": tasks})
    assert (refused.status_code, "retry-after" in refused.headers) == (429, False)


async def test_a_key_that_lacks_the_scope_is_limited_all_the_same(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, rate_limit_chat="3/minute")
    async with running(settings) as node:
        headers = {"x-api-key": await node.new_key("read")}
        body = {"agent": "reasoning", "task": "?", "model": "good"}
        asked = [await node.http.post("/api/v1/chat", json=body, headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in asked] == [403, 403, 403, 429, 429]
