"""Chats that go on with a conversation: what the model is told, for whom, and never out of the cache."""

from typing import Any

from tests.live.clients import socket
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream


def ask(task: str, **more: Any) -> dict[str, Any]:
    return {"agent": "reasoning", "task": task, "model": "good", "session_id": "s-1", **more}


def told(model_server: Upstream) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in model_server.bodies[-1]["messages"]][1:]


async def test_the_model_is_told_what_was_said_before(node: RunningNode, model_server: Upstream) -> None:
    await node.http.post("/api/v1/chat", json=ask("What is the capital of France?"))
    await node.http.post("/api/v1/chat", json=ask("And its river?"))
    assert told(model_server) == [
        ("user", "What is the capital of France?"),
        ("assistant", "Paris is the capital."),
        ("user", "And its river?"),
    ]


async def test_streams_and_sockets_go_on_with_it_too(node: RunningNode, model_server: Upstream) -> None:
    async with node.http.stream("POST", "/api/v1/chat", json=ask("One?", stream=True)) as response:
        await response.aread()
    async with socket(node) as client:
        await client.say("chat", id="c1", **ask("Two?"))
        await client.hear("done")
    await node.http.post("/api/v1/chat", json=ask("Three?"))
    assert [text for role, text in told(model_server) if role == "user"] == ["One?", "Two?", "Three?"]


async def test_a_task_too_large_to_be_kept_is_answered_and_what_was_said_before_stays(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, redis_url, model_server, session_max_bytes=1000)) as node:
        for task in ("One?", "x" * 1000, "Two?"):
            response = await node.http.post("/api/v1/chat", json=ask(task))
            assert (response.status_code, response.json()["answer"]) == (200, "Paris is the capital.")
        assert [text for role, text in told(model_server) if role == "user"] == ["One?", "Two?"]
        async with node.http.stream("POST", "/api/v1/chat", json=ask("x" * 1000, stream=True)) as response:
            assert b"event: done" in await response.aread()
        assert (await node.http.get("/api/v1/sessions/s-1")).json()["messages"] == 4


async def test_every_agents_answer_becomes_part_of_it(node: RunningNode, model_server: Upstream) -> None:
    both = {"agents": ["reasoning", "coding"], "task": "One?", "model": "good", "session_id": "s-1"}
    await node.http.post("/api/v1/chat", json=both)
    await node.http.post("/api/v1/chat", json=ask("Two?"))
    assert [role for role, _ in told(model_server)] == ["user", "assistant", "assistant", "user"]


async def test_a_conversation_is_its_owners_alone(node: RunningNode, model_server: Upstream) -> None:
    await node.http.post("/api/v1/chat", json=ask("My secret is 7."))
    await node.new_user("somebody")
    key = await node.new_key("chat", user="somebody")
    await node.http.post("/api/v1/chat", json=ask("What is my secret?"), headers={"x-api-key": key})
    assert told(model_server) == [("user", "What is my secret?")]


async def test_a_conversation_is_never_answered_from_the_cache(node: RunningNode, model_server: Upstream) -> None:
    for _ in range(2):
        response = await node.http.post("/api/v1/chat", json=ask("Hello?", session_id="s-2"))
        assert response.headers["x-cache"] == "BYPASS"
        await node.http.delete("/api/v1/sessions/s-2")
    assert len(model_server.bodies) == 2


async def test_an_answer_that_failed_is_not_remembered(node: RunningNode, model_server: Upstream) -> None:
    await node.http.post("/api/v1/chat", json=ask("One?", model="dies"))
    await node.http.post("/api/v1/chat", json=ask("Two?"))
    assert told(model_server) == [("user", "Two?")]


async def test_the_conversation_can_be_read_and_deleted(node: RunningNode) -> None:
    await node.http.post("/api/v1/chat", json=ask("What is the capital of France?"))
    listed = (await node.http.get("/api/v1/sessions")).json()
    assert [item["session_id"] for item in listed["sessions"]] == ["s-1"]
    assert (await node.http.delete("/api/v1/sessions/s-1")).status_code == 204
    assert (await node.http.get("/api/v1/sessions/s-1")).status_code == 404
