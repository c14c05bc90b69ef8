"""Caches of several nodes over one Redis, wired as a node wires them, and calls that the test holds in its hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import redis

from service.background import Background
from service.cache.entry import digest, name_of
from service.cache.flight import Reader
from service.cache.flights import Flights
from service.settings import load
from service.telemetry.metrics import Metrics
from service.wiring.cache import Caching
from service.wiring.ground import Ground, open_redis


class Text:
    """Keeps a text as UTF-8, and understands nothing that begins with `?`."""

    def encode(self, final: str) -> bytes:
        return final.encode()

    def decode(self, value: bytes) -> str:
        if value.startswith(b"?"):
            raise ValueError("not understood")
        return value.decode()


def not_cut(final: str) -> bool:
    return final != "cut"


class CacheNode:
    """One node's cache; `flights` carry texts, of which `cut` is not kept."""

    def __init__(self, ground: Ground, caching: Caching) -> None:
        self.ground, self.metrics, self.caching = ground, ground.metrics, caching
        self.manager, self.flushes = caching.manager, caching.flushes
        self.cache = caching.cache
        self.leads = caching._leads
        self.flights: Flights[str] = caching.flights(Text(), not_cut)

    def open(self, key: str, call: "Call", groups: tuple[str, ...] = ("sound",), **how: Any) -> Reader[str]:
        return self.flights.open(digest(key), "agent_response", groups, 60, call.begin, **how)

    async def ask(self, key: str, call: "Call", **how: Any) -> tuple[str, str]:
        """The final item, and where it came from."""
        async with self.open(key, call, **how) as reader:
            return await reader.final(), reader.source.result

    def counted(self, result: str, cache: str = "agent_response") -> float | None:
        return self.metrics.registry.get_sample_value("atp_cache_requests_total", {"cache": cache, "result": result})

    def forget_near(self, key: str) -> None:
        self.cache.drop_near(name_of("agent_response", digest(key)))


@asynccontextmanager
async def cache_node(redis_url: str, **settings: Any) -> AsyncIterator[CacheNode]:
    async with AsyncExitStack() as stack:
        nothing = cast(Any, None)
        ground = Ground(load(redis_url=redis_url, **settings), Metrics(), stack, nothing, nothing)
        if redis_url:
            open_redis(ground)
        node = CacheNode(ground, Caching(ground))
        background = await stack.enter_async_context(Background(ground.metrics.unhandled.labels("background")))
        for name, work in ground.work.items():
            background.start(name, work)
        yield node


class Call:
    """What is called where nothing is cached: pieces, then the whole. It waits for `go` before the whole."""

    def __init__(self, *items: str, go: bool = True, failure: Exception | None = None) -> None:
        self.items, self.failure = items or ("whole",), failure
        self.begun = self.ended = 0
        self.go = asyncio.Event()
        if go:
            self.go.set()

    async def begin(self) -> AsyncGenerator[str, None]:
        self.begun += 1
        try:
            for item in self.items[:-1]:
                yield item
            await self.go.wait()
            if self.failure:
                raise self.failure
            yield self.items[-1]
        finally:
            self.ended += 1


def stored(redis_url: str, kind: str = "agent_response") -> list[str]:
    """The names of the entries that Redis has."""
    with redis.Redis.from_url(redis_url) as client:
        return sorted(name.decode() for name in client.scan_iter(f"atp:cache:{kind}:*"))


def leads(redis_url: str) -> int:
    """How many leads are held."""
    with redis.Redis.from_url(redis_url) as client:
        return len(list(client.scan_iter("atp:cache:flight:*")))
