"""OpenAI's API, asked by OpenAI's own Python SDK: answers, streams, and its error classes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from service.routes.completion_requests import UNSUPPORTED, WITHOUT_EFFECT, CompletionRequest
from tests.nodes import RunningNode, node_settings, running
from tests.upstream import Upstream
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
async def client(node: RunningNode) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{node.url}/v1", api_key=node.key, max_retries=0) as sdk:
        yield sdk


async def test_the_sdk_gets_a_completion_with_its_usage(client: AsyncOpenAI, model_server: Upstream) -> None:
    completion = await client.chat.completions.create(model="good", messages=FRANCE, temperature=0.5)
    assert completion.choices[0].message.content == "Paris is the capital."
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.object, completion.model) == ("chat.completion", "good")
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        *(7, 4, 11),
    )
    assert model_server.bodies[0]["messages"] == FRANCE
    assert model_server.bodies[0]["temperature"] == 0.5


async def test_a_model_name_may_be_an_agent_with_its_instructions(client: AsyncOpenAI, model_server: Upstream) -> None:
    completion = await client.chat.completions.create(model="agent:reasoning", messages=FRANCE)
    assert completion.model == "agent:reasoning"
    roles = [message["role"] for message in model_server.bodies[0]["messages"]]
    assert roles == ["system", "user"]
    assert "thinks a question through" in model_server.bodies[0]["messages"][0]["content"]


async def test_a_stream_is_chunks_of_one_id_with_the_usage_last(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="good", messages=FRANCE, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Paris is the capital."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 4)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_stream_without_the_option_has_no_usage_and_ends_with_done(node: RunningNode) -> None:
    body = {"model": "good", "messages": FRANCE, "stream": True}
    async with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        text = (await response.aread()).decode()
    assert response.headers["content-type"] == "text/event-stream"
    events = text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert not any("usage" in json.loads(event.removeprefix("data: ")) for event in events[:-1])


async def test_completions_leave_usage_rows_like_chats(client: AsyncOpenAI, node: RunningNode) -> None:
    await client.chat.completions.create(model="good", messages=FRANCE)
    async for _ in await client.chat.completions.create(model="agent:coding", messages=FRANCE, stream=True, seed=1):
        pass
    rows = await node.rows('SELECT agent, model, tokens_in, tokens_out, status FROM api_usage ORDER BY "timestamp"')
    assert rows == [("", "good", 7, 4, 200), ("coding", "good", 7, 4, 200)]


async def test_parts_developers_and_a_single_stop_are_understood(client: AsyncOpenAI, model_server: Upstream) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2+2?"}]},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3+3?"},
    ]
    await client.chat.completions.create(model="good", messages=messages, stop=".", max_completion_tokens=9, user="u1")
    assert model_server.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3+3?"},
    ]
    assert model_server.bodies[0]["stop"] == ["."]
    assert model_server.bodies[0]["max_tokens"] == 9


async def test_effort_verbosity_and_names_reach_the_model(client: AsyncOpenAI, model_server: Upstream) -> None:
    messages: Any = [{"role": "system", "content": "Be brief.", "name": "house"}, FRANCE[0] | {"name": "ana"}]
    await client.chat.completions.create(
        model="good", messages=[*messages, *FRANCE], reasoning_effort="low", verbosity="high"
    )
    sent = model_server.bodies[0]
    assert sent["messages"] == [*messages, *FRANCE]
    assert (sent["reasoning_effort"], sent["verbosity"]) == ("low", "high")


async def test_another_effort_verbosity_or_name_is_another_question(node: RunningNode, model_server: Upstream) -> None:
    async def asked(**fields: Any) -> str:
        body = {"model": "good", "messages": FRANCE} | fields
        return str((await node.http.post("/v1/chat/completions", json=body)).headers["x-cache"])

    for fields in (
        {},
        {"reasoning_effort": "low"},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"messages": [FRANCE[0] | {"name": "ana"}]},
        {"messages": [FRANCE[0] | {"name": "ben"}]},
    ):
        assert [await asked(**fields), await asked(**fields)] == ["MISS", "HIT"]
    assert len(model_server.bodies) == 6


def test_each_parameter_of_the_sdk_is_honoured_refused_or_said_to_have_no_effect() -> None:
    theirs = set(CompletionCreateParamsBase.__annotations__) | {"stream"}
    honoured = set(CompletionRequest.model_fields)
    assert theirs == honoured | UNSUPPORTED.keys() | WITHOUT_EFFECT
    page = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in sorted(WITHOUT_EFFECT) if f"`{name}`" not in page] == []


async def test_the_models_are_agents_and_models(client: AsyncOpenAI) -> None:
    listed = {model.id: model.owned_by async for model in client.models.list()}
    assert listed["agent:reasoning"] == "atp"
    assert listed["good"] == "scripted"
    assert (await client.models.retrieve("agent:reasoning")).id == "agent:reasoning"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/agent:reasoning"])
async def test_a_client_may_keep_the_models_and_each_node_says_the_same(
    database_url: str, redis_url: str, model_server: Upstream, path: str
) -> None:
    settings = [node_settings(database_url, redis_url, model_server, node_name=name) for name in ("one", "two")]
    async with running(settings[0]) as one, running(settings[1]) as two:
        first, second = await one.http.get(path), await two.http.get(path)
        assert first.content == second.content
        assert {model["created"] for model in first.json().get("data", [first.json()])} == {0}
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "max-age=60, s-maxage=0"
        assert first.headers["vary"] == "X-API-Key, Authorization"
        again = await two.http.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == "max-age=60, s-maxage=0"
        unknown = await one.http.get("/v1/models/gpt-9")
        assert (unknown.status_code, "etag" in unknown.headers) == (404, False)


async def test_a_wrong_key_is_an_authentication_error(node: RunningNode) -> None:
    async with AsyncOpenAI(base_url=f"{node.url}/v1", api_key="sk-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.chat.completions.create(model="good", messages=FRANCE)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


async def test_an_unknown_model_is_a_not_found_error(client: AsyncOpenAI) -> None:
    for name in ("gpt-9", "agent:nobody"):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=name, messages=FRANCE)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve(name)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 9},
        {"messages": []},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": 0},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"reasoning_effort": "enormous"},
        {"extra_body": {"no_such_field": 1}},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_cannot_be_honoured_is_a_bad_request_error(client: AsyncOpenAI, fields: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**{"model": "good", "messages": FRANCE, **fields})
    assert refused.value.type == "invalid_request_error"


async def test_defaults_that_clients_spell_out_are_no_fault(client: AsyncOpenAI) -> None:
    fields: Any = {"n": 1, "tools": [], "response_format": {"type": "text"}, "logprobs": False, "metadata": {"a": "b"}}
    completion = await client.chat.completions.create(model="good", messages=FRANCE, **fields)
    assert completion.choices[0].message.content == "Paris is the capital."


async def test_a_model_server_that_fails_is_a_server_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(model="dies", messages=FRANCE)
    assert failed.value.status_code == 502


async def test_a_stream_that_breaks_raises_in_the_clients_hands(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="breaks-off", messages=FRANCE, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_a_limited_key_is_a_rate_limit_error_that_says_when(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, rate_limit_chat="1/minute")
    async with (
        running(settings) as node,
        AsyncOpenAI(base_url=f"{node.url}/v1", api_key=node.key, max_retries=0) as client,
    ):
        await client.chat.completions.create(model="good", messages=FRANCE)
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="good", messages=FRANCE)
    assert limited.value.code == "rate_limit_exceeded"
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 120
    assert limited.value.response.headers["x-ratelimit-limit-requests"] == "1"
    assert limited.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_stream_that_breaks_is_an_error_in_the_ledger_and_not_a_client_that_left(
    client: AsyncOpenAI, node: RunningNode
) -> None:
    stream = await client.chat.completions.create(model="breaks-off", messages=FRANCE, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass

    async def recorded() -> bool:  # the error is said before its row is durable
        return bool(await node.rows("SELECT status FROM api_usage"))

    await eventually(recorded)
    assert await node.rows("SELECT status FROM api_usage") == [(502,)]
