"""Cached answers: how often they save a call, what they take, and the Redis behind them."""

from observability.grafana.builder import saturation
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import CONTEXT, TRAFFIC, NoLimits, above
from observability.grafana.builder.links import on_instance
from observability.grafana.builder.panels import Panel, figure, lines
from observability.grafana.builder.query import Q, counted, held, quantile, share

LOOKUPS = "atp_cache_requests_total"
# A caller that wanted an answer of its own did not look.
LOOKED = 'result!="bypass"'
YESTERDAY = NoLimits("what is good depends on what is asked; AtpCacheHitLow fires under half of yesterday's")


def board() -> Board:
    it = Board("atp-cache", "ATP · Cache", "Hits, size, evictions, and Redis.")
    it.row("Hits", [_saved_now(), _entries_now(), _bytes_now()], [_hits(), _results(), _shared()])
    it.row("Size", [_memory(), _entries(), _evictions()])
    it.row("Redis", [_redis_time(), _redis_operations(), saturation.redis_memory()])
    return it


def _saved() -> str:
    """Hits, and those that joined a call under way, of all look-ups."""
    return share(counted(LOOKUPS, 'result=~"hit|shared"', by="cache"), counted(LOOKUPS, LOOKED, by="cache"))


def _saved_now() -> Panel:
    return figure(
        "Calls saved",
        "Share of the look-ups that made no call of their own, by cache.",
        "percentunit",
        YESTERDAY,
        Q(_saved(), "{{cache}}"),
        empty="no look-ups",
        width=12,
    )


def _entries_now() -> Panel:
    return figure(
        "Answers in memory",
        "Cached answers in the processes' memory, all together.",
        "short",
        CONTEXT,
        Q(held("atp_cache_memory_entries"), "answers"),
        width=6,
    )


def _bytes_now() -> Panel:
    return figure(
        "Memory of the cache",
        "Bytes of cached answers in the processes' memory, all together.",
        "bytes",
        CONTEXT,
        Q(held("atp_cache_memory_bytes"), "bytes"),
        width=6,
    )


def _hits() -> Panel:
    return lines(
        "Calls saved over time",
        "Hits and joined calls of all look-ups but bypasses.",
        "percentunit",
        YESTERDAY,
        Q(_saved(), "{{cache}}"),
        empty="no look-ups",
        most=1,
    )


def _results() -> Panel:
    return lines(
        "Look-ups",
        "hit; miss: a call was made; shared: one under way was joined; bypass: the caller wanted its own.",
        "cps",
        TRAFFIC,
        Q(counted(LOOKUPS, by="cache, result"), "{{cache}} {{result}}"),
        empty="no look-ups",
        stacked=True,
    )


def _shared() -> Panel:
    return lines(
        "Joined calls",
        "Look-ups that joined a call under way: a stampede that was one call.",
        "cps",
        TRAFFIC,
        Q(counted(LOOKUPS, 'result="shared"', by="cache"), "{{cache}}"),
        empty="none",
    )


def _memory() -> Panel:
    return lines(
        "Memory by instance",
        "Bytes of cached answers; bounded by the settings.",
        "bytes",
        NoLimits("it is full when it works"),
        Q(held("atp_cache_memory_bytes", by="instance"), "{{instance}}"),
        links=on_instance(),
    )


def _entries() -> Panel:
    return lines(
        "Answers by instance",
        "Cached answers in memory.",
        "short",
        NoLimits("it is full when it works"),
        Q(held("atp_cache_memory_entries", by="instance"), "{{instance}}"),
        links=on_instance(),
    )


def _evictions() -> Panel:
    return lines(
        "Evictions",
        "Answers dropped to make room for others.",
        "cps",
        CONTEXT,
        Q(counted("atp_cache_evictions_total", by="instance"), "{{instance}}"),
        empty="none",
    )


def _redis_time() -> Panel:
    return lines(
        "Time of a Redis operation, p95",
        "By operation, as this side saw it.",
        "s",
        above(0.3, 0.05),
        Q(quantile(0.95, "db_client_operation_duration_seconds", 'system="redis"', by="operation"), "{{operation}}"),
        empty="no operations",
    )


def _redis_operations() -> Panel:
    return lines(
        "Redis operations",
        "Operations a second, by operation.",
        "ops",
        TRAFFIC,
        Q(counted("db_client_operation_duration_seconds_count", 'system="redis"', by="operation"), "{{operation}}"),
        empty="no operations",
    )
