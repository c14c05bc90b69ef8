"""POST /api/v1/chat: the answer, the stream, every way a model can fail, and the row that is left."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnPostgres
from tests.upstream import Upstream
from tests.waiting import eventually

FRANCE = {"agent": "reasoning", "task": "What is the capital of France?"}


def ask(model: str = "good", **more: Any) -> dict[str, Any]:
    return {**FRANCE, "model": model, **more}


async def events(node: RunningNode, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    async with node.http.stream("POST", "/api/v1/chat", json={**body, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        text = (await response.aread()).decode()
    pairs = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


async def test_one_agent_answers_with_its_usage(node: RunningNode, model_server: Upstream) -> None:
    response = await node.http.post("/api/v1/chat", json=ask())
    assert response.status_code == 200
    answer = response.json()
    assert answer["answer"] == "Paris is the capital."
    assert answer["agent"] == "reasoning"
    assert answer["model"] == "good"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"] == {"input_tokens": 7, "output_tokens": 4, "estimated": False}
    asked = model_server.bodies[0]
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert asked["messages"][1]["content"] == "What is the capital of France?"
    assert asked["temperature"] == 0.0
    assert model_server.headers[0]["authorization"] == "Bearer sk-upstream"


async def test_the_answer_leaves_a_committed_usage_row(node: RunningNode) -> None:
    response = await node.http.post("/api/v1/chat", json=ask(), headers={"x-request-id": "my-request-1"})
    rows = await node.rows(
        "SELECT id::text, request_id, agent, model, tokens_in, tokens_out, cached, status FROM api_usage"
    )
    assert rows == [(response.json()["id"], "my-request-1", "reasoning", "good", 7, 4, False, 200)]


async def slowly(body: dict[str, Any]) -> AsyncIterator[bytes]:
    """As a poor line sends it: the last byte 0.4 s after the head."""
    data = json.dumps(body).encode()
    yield data[:-1]
    await asyncio.sleep(0.4)
    yield data[-1:]


@pytest.mark.parametrize("path", ["/api/v1/chat", "/api/v1/chat/batch", "/v1/chat/completions"])
async def test_a_row_counts_its_time_from_the_requests_head_though_the_body_comes_slowly(
    node: RunningNode, path: str
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/api/v1/chat": ask(),
        "/api/v1/chat/batch": {"requests": [ask()]},
        "/v1/chat/completions": {"model": "good", "messages": [{"role": "user", "content": "?"}]},
    }
    ((before,),) = await node.rows("SELECT clock_timestamp()")
    head = {"content-type": "application/json"}
    assert (await node.http.post(path, content=slowly(bodies[path]), headers=head)).status_code == 200
    ((timestamp, duration_s),) = await node.rows("SELECT timestamp, duration_s FROM api_usage")
    assert 0.4 <= duration_s < 2
    assert 0 <= (timestamp - before).total_seconds() < 0.3


async def test_a_request_overrides_the_agents_parameters(node: RunningNode, model_server: Upstream) -> None:
    await node.http.post("/api/v1/chat", json=ask(parameters={"temperature": 1.5, "max_tokens": 9}))
    assert model_server.bodies[0]["temperature"] == 1.5
    assert model_server.bodies[0]["max_tokens"] == 9


@pytest.mark.parametrize("model", ["no-usage", "absurd-usage", "negative-usage"])
async def test_tokens_are_estimated_where_the_server_counts_none_or_cannot_be_believed(
    node: RunningNode, model: str
) -> None:
    answer = (await node.http.post("/api/v1/chat", json=ask(model))).json()
    assert answer["usage"]["estimated"] is True
    assert answer["usage"]["output_tokens"] == 6  # 21 characters
    streamed = await events(node, ask(model, parameters={"seed": 1}))
    assert streamed[-1][1]["usage"] == answer["usage"]
    assert await node.rows("SELECT count(*), max(tokens_out) FROM api_usage") == [(2, 6)]


async def test_a_redirect_is_not_followed(node: RunningNode, model_server: Upstream) -> None:
    response = await node.http.post("/api/v1/chat", json=ask("redirects"))
    assert response.status_code == 502
    assert len(model_server.bodies) == 1


async def test_an_answer_that_dies_is_asked_for_once(node: RunningNode, model_server: Upstream) -> None:
    assert (await node.http.post("/api/v1/chat", json=ask("dies"))).status_code == 502
    assert len(model_server.bodies) == 1


async def test_while_usage_cannot_be_recorded_no_model_is_paid(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(
        own_postgres.dsn, redis_url, model_server, db_timeout=0.5, usage_spool_dir="/dev/null/no-folder"
    )
    async with running(settings) as node:
        assert (await node.http.post("/api/v1/chat", json=ask())).status_code == 200
        own_postgres.freeze()

        async def known_down() -> bool:
            return await node.metric('atp_dependency_up{dependency="postgresql"}') == 0

        await eventually(known_down)
        response = await node.http.post("/api/v1/chat", json=ask())
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert len(model_server.bodies) == 1
        own_postgres.thaw()


async def test_a_stream_is_deltas_then_the_agents_end_then_done(node: RunningNode) -> None:
    got = await events(node, ask())
    assert [name for name, _ in got] == ["delta", "delta", "delta", "delta", "answer", "done"]
    assert "".join(data["text"] for name, data in got if name == "delta") == "Paris is the capital."
    assert got[-2][1] == {
        "agent": "reasoning",
        "model": "good",
        "finish_reason": "stop",
        "cached": False,
        "usage": {"input_tokens": 7, "output_tokens": 4, "estimated": False},
    }
    assert await node.rows("SELECT id::text, tokens_in, tokens_out, status FROM api_usage") == [
        (got[-1][1]["id"], 7, 4, 200)
    ]


async def test_several_agents_answer_side_by_side(node: RunningNode) -> None:
    body = {"agents": ["reasoning", "summary"], "task": "Say something.", "model": "good"}
    answer = (await node.http.post("/api/v1/chat", json=body)).json()
    assert [item["agent"] for item in answer["answers"]] == ["reasoning", "summary"]
    assert [item["answer"] for item in answer["answers"]] == ["Paris is the capital."] * 2
    assert answer["usage"] == {"input_tokens": 14, "output_tokens": 8, "estimated": False}
    assert await node.rows("SELECT agent, tokens_in, status FROM api_usage") == [("reasoning,summary", 14, 200)]


async def test_several_agents_stream_into_one_another(node: RunningNode) -> None:
    got = await events(node, {"agents": ["reasoning", "summary", "coding"], "task": "Go.", "model": "slow"})
    for agent in ("reasoning", "summary", "coding"):
        assert "".join(d["text"] for n, d in got if n == "delta" and d["agent"] == agent) == "Paris is the capital."
    assert sorted(data["agent"] for name, data in got if name == "answer") == ["coding", "reasoning", "summary"]
    assert got[-1][0] == "done"
    first_five = {data["agent"] for _, data in got[:5]}
    assert len(first_five) > 1


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("refuses", 502, "upstream-error"),
        ("overloaded", 502, "upstream-error"),
        ("garbage", 502, "upstream-error"),
        ("empty", 502, "upstream-error"),
        ("dies", 502, "upstream-error"),
        ("huge", 502, "upstream-error"),
        ("silent", 504, "upstream-timeout"),
    ],
)
async def test_a_failing_model_is_a_problem_and_never_a_hang(
    strict_node: RunningNode, model: str, status: int, code: str
) -> None:
    async with asyncio.timeout(3):
        response = await strict_node.http.post("/api/v1/chat", json=ask(model))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:atp:problem:{code}"
    assert "sk-secret" not in response.text
    assert await strict_node.rows("SELECT model, status, tokens_out FROM api_usage") == [(model, status, 0)]


@pytest.mark.parametrize("model", ["refuses", "garbage", "silent"])
async def test_a_model_that_fails_before_its_first_word_is_a_plain_problem_for_streams_too(
    strict_node: RunningNode, model: str
) -> None:
    response = await strict_node.http.post("/api/v1/chat", json=ask(model, stream=True))
    assert response.status_code == (504 if model == "silent" else 502)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("dies", 502),
        ("breaks-off", 502),
        ("error-event", 502),
        ("endless-line", 502),
        ("huge", 502),
        ("stalls", 504),
    ],
)
async def test_a_model_that_fails_in_the_middle_ends_the_stream_with_an_error_event(
    strict_node: RunningNode, model: str, status: int
) -> None:
    async with asyncio.timeout(3):
        got = await events(strict_node, ask(model))
    assert got[0] == ("delta", {"agent": "reasoning", "text": "Paris"})
    assert [name for name, _ in got if name != "delta"] == ["error", "done"]
    assert got[-2][1]["status"] == status
    assert got[-2][1]["agent"] == "reasoning"
    assert await strict_node.rows("SELECT status, tokens_out > 0 FROM api_usage") == [(status, True)]


async def test_an_agent_that_fails_does_not_spoil_the_others(failing_agent_node: RunningNode) -> None:
    body = {"agents": ["sound", "broken"], "task": "Go."}
    answer = (await failing_agent_node.http.post("/api/v1/chat", json=body)).json()
    assert answer["answers"][0]["answer"] == "Paris is the capital."
    assert answer["answers"][1]["error"]["status"] == 502
    got = await events(failing_agent_node, body)
    assert {name for name, data in got if data.get("agent") == "broken"} == {"error"}
    assert got[-1][0] == "done"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_model_call_and_is_accounted(
    node: RunningNode, model_server: Upstream, stream: bool
) -> None:
    body = json.dumps(ask("stalls" if stream else "silent", stream=stream)).encode()
    head = f"POST /api/v1/chat HTTP/1.1\r\nhost: x\r\nx-api-key: {node.key}\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    if stream:
        await reader.readuntil(b"Paris")
    await eventually(lambda: model_server.open == 1)
    writer.close()
    await eventually(lambda: model_server.open == 0)
    assert model_server.ended_early == 1

    async def rows() -> bool:
        return await node.rows("SELECT status, tokens_in > 0, tokens_out FROM api_usage") == [
            (499, True, 2 if stream else 0)
        ]

    await eventually(rows)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task": "x"}, ""),
        ({"agent": "reasoning", "agents": ["summary"], "task": "x"}, ""),
        ({"agent": "reasoning"}, "task"),
        ({"agent": "reasoning", "task": ""}, "task"),
        ({"agent": "reasoning", "task": "x", "temprature": 1}, "temprature"),
        ({"agent": "reasoning", "task": "x", "parameters": {"temperature": 3}}, "parameters.temperature"),
        ({"agents": [], "task": "x"}, "agents"),
        ({"agents": ["summary", "summary"], "task": "x"}, ""),
        ({"agent": "reasoning", "task": 5}, "task"),
    ],
)
async def test_a_body_that_breaks_the_schema_is_422_and_names_the_field(
    node: RunningNode, body: dict[str, Any], field: str
) -> None:
    response = await node.http.post("/api/v1/chat", json=body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_an_unknown_agent_or_model_is_404_and_says_what_there_is(node: RunningNode) -> None:
    response = await node.http.post("/api/v1/chat", json={"agent": "oracle", "task": "x"})
    assert response.status_code == 404
    assert response.json()["known"] == ["coding", "reasoning", "research", "summary", "writing"]
    assert (await node.http.post("/api/v1/chat", json=ask("gpt-9"))).status_code == 404


async def test_the_callers_trace_goes_on_to_the_model(node: RunningNode, model_server: Upstream) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await node.http.post("/api/v1/chat", json=ask(), headers={"traceparent": trace})
    assert model_server.headers[0]["traceparent"].split("-")[1] == "4bf92f3577b34da6a3ce929d0e0e4736"
