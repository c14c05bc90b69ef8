"""Chats over a socket: the same agents, events and ledger as over REST."""

from typing import Any

import pytest

from tests.live.clients import Client, socket
from tests.nodes import RunningNode
from tests.upstream import Upstream
from tests.waiting import eventually

FRANCE = {"agent": "reasoning", "task": "What is the capital of France?"}


async def chat(client: Client, id_: str, model: str = "good", **more: Any) -> None:
    await client.say("chat", id=id_, **{**FRANCE, "model": model, **more})


async def rows(node: RunningNode) -> list[Any]:
    return await node.rows("SELECT agent, model, tokens_out, status FROM api_usage ORDER BY timestamp")


async def test_an_answer_comes_piece_by_piece_and_ends_with_done_once_its_usage_is_durable(node: RunningNode) -> None:
    async with socket(node) as client:
        await chat(client, "c1")
        messages = await client.until("done")
    assert [m["type"] for m in messages] == ["delta"] * 4 + ["answer", "done"]
    assert {m["id"] for m in messages} == {"c1"}
    assert "".join(m["text"] for m in messages[:4]) == "Paris is the capital."
    assert messages[-1]["usage"] == {"input_tokens": 7, "output_tokens": 4, "estimated": False}
    assert await rows(node) == [("reasoning", "good", 4, 200)]
    assert [str(row[0]) for row in await node.rows("SELECT id FROM api_usage")] == [messages[-1]["chat_id"]]


async def test_several_agents_answer_one_chat(node: RunningNode) -> None:
    async with socket(node) as client:
        await client.say("chat", id="c1", agents=["reasoning", "summary"], task="Hello", model="good")
        messages = await client.until("done")
    assert {m["agent"] for m in messages if m["type"] == "answer"} == {"reasoning", "summary"}


async def test_chats_run_side_by_side(node: RunningNode) -> None:
    async with socket(node) as client:
        await chat(client, "slow", model="slow")
        await chat(client, "quick")
        assert (await client.hear("done"))["id"] == "quick"
        assert (await client.hear("done"))["id"] == "slow"


async def test_a_cancelled_chat_ends_its_model_call_and_leaves_its_row(
    node: RunningNode, model_server: Upstream
) -> None:
    async with socket(node) as client:
        await chat(client, "c1", model="stalls")
        await client.hear("delta")
        await client.say("cancel", id="c1")
        done = await client.hear("done")
        assert done["cancelled"] is True
        await eventually(lambda: model_server.open == 0)
        await chat(client, "c1")
        assert (await client.hear("done"))["id"] == "c1"

    async def two_rows() -> bool:
        return [row[3] for row in await rows(node)] == [499, 200]

    await eventually(two_rows)


async def test_a_client_that_leaves_ends_its_chats(node: RunningNode, model_server: Upstream) -> None:
    async with socket(node) as client:
        await chat(client, "c1", model="stalls")
        await client.hear("delta")
    await eventually(lambda: model_server.open == 0)

    async def one_row() -> bool:
        return [row[3] for row in await rows(node)] == [499]

    await eventually(one_row)


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"agent": "nobody"}, "not-found", 404),
        ({"model": "nothing"}, "not-found", 404),
        ({"task": ""}, "invalid", 422),
        ({"agents": ["reasoning"]}, "invalid", 422),
        ({"colour": "red"}, "invalid", 422),
        ({"parameters": {"temperature": 9}}, "invalid", 422),
        ({"parameters": {"temperature": "1"}}, "invalid", 422),
        ({"stream": "true"}, "invalid", 422),
        ({"stream": 1}, "invalid", 422),
        ({"session_id": 5}, "invalid", 422),
        ({"parameters": {"temperature": float("nan")}}, "invalid", 422),
    ],
)
async def test_a_chat_that_cannot_begin_is_one_error_with_its_id(
    node: RunningNode, body: dict[str, Any], code: str, status: int
) -> None:
    async with socket(node) as client:
        await chat(client, **{"id_": "c1", **body})
        error = await client.next()
    assert (error["type"], error["id"]) == ("error", "c1")
    assert (error["problem"]["type"], error["problem"]["status"]) == (f"urn:atp:problem:{code}", status)


async def test_a_model_that_fails_is_an_error_of_its_agent_and_the_chat_is_done(node: RunningNode) -> None:
    async with socket(node) as client:
        await chat(client, "c1", model="refuses")
        error, done = await client.until("done")
    assert (error["type"], error["agent"], error["problem"]["status"]) == ("error", "reasoning", 502)
    assert done["id"] == "c1"
    assert [row[3] for row in await rows(node)] == [502]


async def test_a_chat_id_under_way_cannot_be_used_again_and_an_unknown_one_not_cancelled(node: RunningNode) -> None:
    async with socket(node) as client:
        await chat(client, "c1", model="stalls")
        await chat(client, "c1")
        assert (await client.hear("error"))["problem"]["status"] == 409
        await client.say("cancel", id="c2")
        assert (await client.hear("error"))["problem"]["status"] == 404


async def test_a_socket_has_eight_chats_under_way_and_no_more(node: RunningNode) -> None:
    async with socket(node) as client:
        for number in range(9):
            await chat(client, f"c{number}", model="stalls")
        error = await client.hear("error")
    assert (error["id"], error["problem"]["type"]) == ("c8", "urn:atp:problem:too-many")
