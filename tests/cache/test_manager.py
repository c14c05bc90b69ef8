"""The guide's API, and the decorator for functions."""

import asyncio
from typing import Any

import pytest

from service.settings import load
from tests.cache.nodes import CacheNode, cache_node, stored


async def test_an_agents_response_is_found_by_agent_task_and_model(first: CacheNode, second: CacheNode) -> None:
    await first.manager.cache_agent_response("sound", "task", "gpt-4", "an answer")
    find = second.manager.get_cached_agent_response
    assert await find("sound", "task", "gpt-4") == "an answer"
    assert await find("sound", "task", "gpt-3") is None
    assert await find("sound", "Task", "gpt-4") is None
    assert await find("soundtask", "", "gpt-4") is None
    assert (second.counted("hit"), second.counted("miss")) == (1, 3)


async def test_half_characters_survive(first: CacheNode, second: CacheNode) -> None:
    await first.manager.cache_agent_response("sound", "\ud800", "gpt-4", "half \ud83d and ñ")
    assert await second.manager.get_cached_agent_response("sound", "\ud800", "gpt-4") == "half \ud83d and ñ"


async def test_a_querys_result_is_found_by_query_agents_and_model(first: CacheNode, second: CacheNode) -> None:
    asked: dict[str, Any] = {"query": {"q": "x", "n": 1}, "agents": ["sound", "coding"], "model": "gpt-4"}
    await first.manager.cache_query_result(**asked, result={"rows": [1, None, "ñ"]})
    find = second.manager.get_cached_query_result
    assert await find({"n": 1, "q": "x"}, ["sound", "coding"], "gpt-4") == {"rows": [1, None, "ñ"]}
    for other in (
        {"query": {"n": 1.0, "q": "x"}},
        {"agents": ["sound"]},
        {"agents": ["coding", "sound"]},
        {"agents": []},
        {"model": "gpt-3"},
    ):
        assert await find(**asked | other) is None
    assert (second.counted("hit", "query"), second.counted("miss", "query")) == (1, 5)


async def test_a_flush_of_any_of_its_agents_is_a_flush_of_a_querys_result(alone: CacheNode) -> None:
    asked: dict[str, Any] = {"query": "query", "agents": ["sound", "coding:revision"], "model": "gpt-4"}
    for agent in ("sound", "coding"):
        await alone.manager.cache_query_result(**asked, result="result")
        await alone.flushes.flush("writing")
        assert await alone.manager.get_cached_query_result(**asked) == "result"
        await alone.flushes.flush(agent)
        assert await alone.manager.get_cached_query_result(**asked) is None


async def test_the_ttl_is_the_settings_unless_told(redis_url: str) -> None:
    import redis

    async with cache_node(redis_url) as node:
        await node.manager.cache_agent_response("sound", "task", "gpt-4", "answer")
        await node.manager.cache_agent_response("sound", "brief", "gpt-4", "answer", ttl=5)
        await node.manager.cache_query_result("query", ["sound"], "gpt-4", "result")
    with redis.Redis.from_url(redis_url) as client:
        ttls = sorted(client.ttl(name) for name in stored(redis_url) + stored(redis_url, "query"))
    assert [round(ttl, -1) for ttl in ttls] == [0, 1800, 7200]


async def test_a_flush_of_the_agent_is_a_flush_of_its_responses(alone: CacheNode) -> None:
    await alone.manager.cache_agent_response("sound:revision", "task", "gpt-4", "answer")
    await alone.flushes.flush("coding")
    assert await alone.manager.get_cached_agent_response("sound:revision", "task", "gpt-4") == "answer"
    await alone.flushes.flush("sound")
    assert await alone.manager.get_cached_agent_response("sound:revision", "task", "gpt-4") is None


async def test_a_cached_function_is_called_once_for_its_arguments(alone: CacheNode) -> None:
    called: list[tuple[Any, ...]] = []

    @alone.manager.cached(ttl=60)
    async def total(first: int, *more: int, scale: float = 1.0) -> float:
        """Add."""
        called.append((first, more, scale))
        return (first + sum(more)) * scale

    assert (total.__name__, total.__doc__) == ("total", "Add.")
    assert [await total(1, 2, 3), await total(1, 2, 3, scale=1.0)] == [6.0, 6.0]
    assert await total(1, 2, scale=2.0) == 6.0
    assert called == [(1, (2, 3), 1.0), (1, (2,), 2.0)]
    assert (alone.counted("hit", "function"), alone.counted("miss", "function")) == (1, 2)


async def test_calls_at_once_are_one_and_each_caller_has_an_object_of_its_own(
    first: CacheNode, second: CacheNode
) -> None:
    called = 0

    async def rates(base: str) -> dict[str, list[int]]:
        nonlocal called
        called += 1
        await asyncio.sleep(0)
        return {base: [1]}

    asked = [node.manager.cached(ttl=60)(rates) for node in (first, second)]
    answers = await asyncio.gather(*(ask("EUR") for ask in asked for _ in range(10)))
    answers[0]["EUR"].append(2)
    assert answers[1:] == [{"EUR": [1]}] * 19
    assert called == 1


async def test_an_exception_is_not_kept(alone: CacheNode) -> None:
    outcomes = iter([ValueError("no"), "yes"])

    @alone.manager.cached(ttl=60)
    async def moody() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(ValueError, match="no"):
        await moody()
    assert [await moody(), await moody()] == ["yes", "yes"]


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: "a"}, {"a": {1}}, [b"bytes"], pytest.param(object(), id="object"), {"deep": [{"x": (1,)}]}],
    ids=repr,
)
async def test_what_json_would_bring_back_as_something_else_is_refused(alone: CacheNode, value: Any) -> None:
    async def same(given: Any) -> Any:
        return value

    with pytest.raises(TypeError):
        await alone.manager.cached(60, name="argument")(same)(value)
    with pytest.raises(TypeError):
        await alone.manager.cached(60, name="result")(same)(None)
    with pytest.raises(TypeError):
        await alone.manager.cache_query_result("query", ["sound"], "gpt-4", value)


async def test_arguments_that_only_look_alike_are_told_apart(alone: CacheNode) -> None:
    @alone.manager.cached(ttl=60)
    async def kind(given: Any) -> str:
        return type(given).__name__ + repr(given)

    values: list[Any] = [1, 1.0, True, "1", None, "None", [], {}, "", [1], ["1"]]
    assert [await kind(value) for value in values] == [type(value).__name__ + repr(value) for value in values]


async def test_two_functions_of_one_name_are_refused(alone: CacheNode) -> None:
    def made(number: int) -> Any:
        async def numbered() -> int:
            return number

        return numbered

    alone.manager.cached(ttl=60)(made(1))
    with pytest.raises(ValueError, match="numbered is cached already"):
        alone.manager.cached(ttl=60)(made(2))
    assert await alone.manager.cached(ttl=60, name="other")(made(2))() == 2


def test_the_guides_ttls_are_the_defaults() -> None:
    settings = load()
    assert (settings.agent_response_ttl, settings.query_cache_ttl) == (7200, 1800)
    assert (settings.cache_memory_bytes, settings.cache_max_entry_bytes) == (64 * 1024 * 1024, 1_000_000)
