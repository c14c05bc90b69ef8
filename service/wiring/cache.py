"""The cache of a node: memory before Redis, flushes, and the flights that share calls."""

import functools
from collections.abc import Callable
from typing import TypeVar

from service.cache.clock import SharedClock
from service.cache.entry import CacheStore, Kind
from service.cache.flight import Result
from service.cache.flights import Codec, Flights, always
from service.cache.flushes import SKEW_MS, Flushes, FlushLog, MemoryFlushLog, RedisFlushLog
from service.cache.leads import Leads, LeadStore, MemoryLeads, RedisLeads
from service.cache.manager import CacheManager, Plain
from service.cache.memory import MemoryCache
from service.cache.redis import RedisCache
from service.cache.store import Cache
from service.state.failover import Failover
from service.state.pipeline import Pipeline
from service.telemetry.metrics import Metrics
from service.wiring.ground import Ground

Item = TypeVar("Item")

# Beside LLM_TOTAL_TIMEOUT, which a leading node's call may take: to look, to connect, to store.
PATIENCE_S = 10.0


class Caching:
    """Made once, by `open_node`, before the background work starts."""

    def __init__(self, ground: Ground) -> None:
        self._ground, settings, metrics = ground, ground.settings, ground.metrics
        clock = SharedClock()
        self._count = counted(metrics)
        self.flushes = flushes(ground, clock)
        memory = MemoryCache(settings.cache_memory_bytes, clock, metrics.cache_evictions)
        metrics.cache_bytes.set_function(lambda: memory.used_bytes)
        metrics.cache_entries.set_function(lambda: len(memory))
        pipeline = open_pipeline(ground)
        shared = RedisCache(pipeline, clock) if pipeline else None
        stores = Failover[CacheStore](ground.breaker, shared, memory)
        self.cache = Cache(stores, memory, self.flushes, clock, settings.cache_max_entry_bytes)
        self._leads = leads(ground, pipeline)
        self.manager = CacheManager(
            self.cache,
            self.flights(Plain()),
            self._count,
            agent_response_ttl_s=settings.agent_response_ttl,
            query_ttl_s=settings.query_cache_ttl,
        )

    def flights(self, codec: Codec[Item], cacheable: Callable[[Item], bool] = always) -> Flights[Item]:
        """Calls shared by those who want the same; ended and awaited with the node."""
        patience_s = self._ground.settings.llm_total_timeout + PATIENCE_S
        flights = Flights[Item](self.cache, self._leads, codec, self._count, patience_s=patience_s, cacheable=cacheable)
        self._ground.stack.push_async_callback(flights.close)
        return flights


def open_pipeline(ground: Ground) -> Pipeline | None:
    if ground.redis is None:
        return None
    pipeline = Pipeline(ground.redis, "cache")
    ground.stack.push_async_callback(pipeline.close)
    return pipeline


def flushes(ground: Ground, clock: SharedClock) -> Flushes:
    shared = RedisFlushLog(ground.redis) if ground.redis else None
    made = Flushes(
        Failover[FlushLog](ground.breaker, shared, MemoryFlushLog(clock, SKEW_MS if shared else 0)), clock, shared
    )
    if ground.breaker:
        ground.breaker.on_recovery(made.recovered)
    ground.work["cache-flushes"] = made.run
    return made


def leads(ground: Ground, pipeline: Pipeline | None) -> Leads:
    shared = RedisLeads(pipeline) if pipeline else None
    made = Leads(Failover[LeadStore](ground.breaker, shared, MemoryLeads()))
    ground.work["cache-leads"] = made.run
    return made


def counted(metrics: Metrics) -> Callable[[Kind, Result], None]:
    """Counts look-ups in children that are looked up once: that costs more than counting."""
    child = functools.lru_cache(64)(metrics.cache_requests.labels)
    return lambda kind, result: child(kind, result).inc()
