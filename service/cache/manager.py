"""The cache by the guide's names: answers of agents, results of queries, results of functions."""

import inspect
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from service.cache.entry import Entry, Kind, digest, name_of
from service.cache.flight import Result
from service.cache.flights import Flights
from service.cache.store import Cache

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

SURROGATES = "surrogatepass"  # half characters, which JSON can carry and some models send


class Plain:
    """Implements Codec for values that are bytes already."""

    def encode(self, final: bytes) -> bytes:
        return final

    def decode(self, value: bytes) -> bytes:
        return value


class CacheManager:
    """`flights` share the calls of cached functions; `count` is told of each look-up.

    A `ttl` is in seconds; without one it is AGENT_RESPONSE_TTL or QUERY_CACHE_TTL.
    """

    def __init__(
        self,
        cache: Cache,
        flights: Flights[bytes],
        count: Callable[[Kind, Result], None],
        *,
        agent_response_ttl_s: float,
        query_ttl_s: float,
    ) -> None:
        self._cache, self._flights, self._count = cache, flights, count
        self._agent_response_ttl_s, self._query_ttl_s = agent_response_ttl_s, query_ttl_s
        self._functions: set[str] = set()

    async def cache_agent_response(
        self, agent_id: str, task: str, model: str, response: str, ttl: float | None = None
    ) -> None:
        """Keep an agent's whole answer to a task. `agent_id` may be with its revision, `agent:revision`.

        A flush that came while the answer was made goes unnoticed here; Flights notices.
        """
        name, group = agent_response(agent_id, task, model), agent_id.partition(":")[0]
        await self._put(
            name, response.encode(errors=SURROGATES), self._agent_response_ttl_s if ttl is None else ttl, (group,)
        )

    async def get_cached_agent_response(self, agent_id: str, task: str, model: str) -> str | None:
        value = await self._get("agent_response", agent_response(agent_id, task, model))
        return None if value is None else value.decode(errors=SURROGATES)

    async def cache_query_result(
        self, query: Any, agents: list[str], model: str, result: Any, ttl: float | None = None
    ) -> None:
        """Keep what some agents, in this order, gave for a query; a flush of any of them forgets it.

        `query` and `result` are JSON: raises TypeError for what is none, tuples too. `agents` as `agent_id` above.
        """
        name, groups = query_result(query, agents, model), tuple(agent.partition(":")[0] for agent in agents)
        await self._put(name, canonical(result), self._query_ttl_s if ttl is None else ttl, groups)

    async def get_cached_query_result(self, query: Any, agents: list[str], model: str) -> Any | None:
        value = await self._get("query", query_result(query, agents, model))
        return None if value is None else json.loads(value)

    def cached(
        self, ttl: float, name: str | None = None
    ) -> Callable[[Callable[Arguments, Awaitable[Value]]], Callable[Arguments, Awaitable[Value]]]:
        """Keep what an async function returns, by its qualified name and its arguments, for `ttl` seconds.

        The guide's is a function of a module; here nothing is global, so it is a method: `@cache.cached(ttl=3600)`.
        Calls with the same arguments at the same time, on any node, are one. Arguments and result are JSON (TypeError
        otherwise: a tuple, a key that is no text, `self`). Exceptions are not kept. `name` replaces the qualified name;
        where two functions have the same one the second is refused (ValueError): they would get each other's values.
        """

        def decorate(function: Callable[Arguments, Awaitable[Value]]) -> Callable[Arguments, Awaitable[Value]]:
            known = self._claim(name or f"{function.__module__}.{function.__qualname__}")
            signature = inspect.signature(function)

            @wraps(function)
            async def from_cache(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                key = digest(known, canonical(given(bound, signature)).decode())

                async def begin() -> AsyncGenerator[bytes, None]:
                    yield canonical(await function(*args, **kwargs))

                async with self._flights.open(key, "function", (), ttl, begin) as reader:
                    value: Value = json.loads(await reader.final())  # each caller has an object of its own
                    return value

            return from_cache

        return decorate

    def _claim(self, name: str) -> str:
        if name in self._functions:
            raise ValueError(f"{name} is cached already: give one of the two functions a name of its own")
        self._functions.add(name)
        return name

    async def _put(self, name: str, value: bytes, ttl_s: float, groups: tuple[str, ...]) -> None:
        now_ms = self._cache.clock.now_ms()
        await self._cache.put(name, Entry(value, ttl_s, now_ms, now_ms, groups))

    async def _get(self, kind: Kind, name: str) -> bytes | None:
        entry = await self._cache.get(name)
        self._count(kind, "hit" if entry else "miss")
        return entry.value if entry else None


def agent_response(agent_id: str, task: str, model: str) -> str:
    return name_of("agent_response", digest("text", agent_id, task, model))


def query_result(query: Any, agents: list[str], model: str) -> str:
    return name_of("query", digest("result", canonical([query, agents, model]).decode()))


def given(bound: inspect.BoundArguments, signature: inspect.Signature) -> dict[str, Any]:
    """The arguments by name; what `*args` collected is a tuple of Python's making, so a list here."""
    collected = {n for n, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_POSITIONAL}
    return {name: list(value) if name in collected else value for name, value in bound.arguments.items()}


def canonical(value: Any) -> bytes:
    """JSON with sorted keys; raises TypeError for what would come back as something else, ValueError for NaN."""
    require_json(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def require_json(value: Any) -> None:
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise TypeError("a cached value has keys that are no text")
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            require_json(part)
    elif not (value is None or type(value) in (bool, int, float, str)):
        raise TypeError(f"{type(value).__name__} is no JSON, so it cannot be cached")
