"""The catalogue of every metric ATP exports: what it counts, its labels and their values.

Names follow OpenTelemetry's semantic conventions in Prometheus form where one exists, else `atp_…`. One process is one
scrape target, so each process has one `Metrics` with a registry of its own, built in `wiring/`. A metric is added
here first. Label values come from closed sets or route templates; never an id.
"""

from collections.abc import Callable, Iterable
from itertools import product

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from service.devices import DEVICES
from service.telemetry.labels import (
    AUTH_FAILURES,
    BLOCKED,
    BUS_DIRECTIONS,
    BUS_KINDS,
    CACHE_RESULTS,
    CACHES,
    CONNECTIONS_CUT,
    DEPENDENCIES,
    LATENCY_S,
    LIMIT_CHECK_S,
    MODEL_LATENCY_S,
    RATE_POLICIES,
    TASK_OUTCOMES,
    TASK_QUEUES,
    TASK_RUN_S,
    TASK_WAIT_S,
    TASKS,
    TELEMETRY_SIGNALS,
    TOKENS,
    UNHANDLED,
    USAGE_OUTCOMES,
    WS_HANDSHAKES,
    WS_IN,
    WS_LIFE_S,
    WS_OUT,
)


class Metrics:
    """Every series of one process, in the catalogue's groups."""

    def __init__(self, version: str = "0", revision: str = "unknown") -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
        self.registry = CollectorRegistry(auto_describe=True)
        self._http()
        self._limits()
        self._usage()
        self._models()
        self._dependencies()
        self._bus()
        self._sockets()
        self._presence()
        self._cache()
        self._tasks()
        self._process(version, revision)
        self._start_at_zero()

    def _http(self) -> None:
        self.http_duration = self._histogram(
            "http_server_request_duration_seconds",
            "Time from the request's head to the answer's last byte; route is the template, `unmatched` when none fits",
            *("http_request_method", "http_route", "http_response_status_code"),
        )
        self.http_active = self._gauge("http_server_active_requests", "Requests being answered")
        self.connections_cut = self._counter("atp_connections_cut", "Connections ATP ended to protect itself", "reason")
        self.unhandled = self._counter("atp_unhandled_exceptions", "Exceptions nobody foresaw", "component")
        self.auth_failures = self._counter("atp_auth_failures", "Requests refused for their API key", "reason")

    def _limits(self) -> None:
        self.ratelimit_decisions = self._counter(
            "atp_ratelimit_decisions", "Checks of a rate limit: allowed or limited", "policy", "decision"
        )
        self.ratelimit_duration = self._histogram(
            "atp_ratelimit_check_duration_seconds", "Time to check a rate limit", buckets=LIMIT_CHECK_S
        )
        self.blocked_requests = self._counter(
            "atp_blocked_requests", "Requests refused since their key, user or address is blocked", "reason"
        )

    def _usage(self) -> None:
        self.usage_rows = self._counter(
            "atp_usage_rows",
            "Usage rows: stored by a commit, spooled on this disk, replayed from there, or failed (refused or lost)",
            "outcome",
        )
        self.usage_spool_rows = self._gauge("atp_usage_spool_rows", "Usage rows on this node's disk, to be replayed")
        self.usage_spool_bytes = self._gauge("atp_usage_spool_bytes", "Size of the segments they are in")

    def _models(self) -> None:
        """OpenTelemetry's GenAI conventions."""
        model = ("operation", "provider", "model")
        self.model_duration = self._histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time of one model call; error_type is empty when it succeeded",
            *(*model, "error_type"),
            buckets=MODEL_LATENCY_S,
        )
        self.model_tokens = self._histogram(
            "gen_ai_client_token_usage",
            "Tokens of one model call, by token_type input or output",
            *(*model, "token_type"),
            buckets=TOKENS,
        )
        self.model_first_chunk = self._histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time to the first piece of a streamed answer",
            *("provider", "model"),
            buckets=MODEL_LATENCY_S,
        )

    def _dependencies(self) -> None:
        self.db_duration = self._histogram(
            "db_client_operation_duration_seconds", "Time of one PostgreSQL or Redis operation", "system", "operation"
        )
        self.pool_connections = self._gauge(
            "db_client_connection_count", "Connections, by state idle or used", "pool", "state"
        )
        self.pool_max = self._gauge("db_client_connection_max", "Connections the pool may open", "pool")
        self.pool_pending = self._gauge(
            "db_client_connection_pending_requests", "Callers waiting for a connection", "pool"
        )
        self.pool_wait = self._histogram("db_client_connection_wait_time_seconds", "Wait for a connection", "pool")
        self.dependency_up = self._gauge("atp_dependency_up", "1 when the last contact succeeded", "dependency")
        self.degraded = self._gauge("atp_degraded", "1 while memory stands in for a dependency", "dependency", "mode")

    def _bus(self) -> None:
        """The stream between nodes."""
        self.bus_messages = self._counter(
            "atp_bus_messages",
            "Bus messages: published by this node, received, skipped as a duplicate, not ours (malformed), or dropped "
            "because too many waited for Redis",
            "direction",
        )
        self.bus_gaps = self._counter("atp_bus_gaps", "Times the stream had lost entries that this node had not read")
        self.delivery_lag = self._histogram(
            "atp_ws_delivery_lag_seconds",
            "From a message's place on the bus to its sockets' queues on this node",
            "kind",
        )

    def _presence(self) -> None:
        self.presence_drift = self._gauge("atp_presence_drift", "Difference between counters and a recount, expected 0")

    def _cache(self) -> None:
        self.cache_requests = self._counter(
            "atp_cache_requests",
            "Look-ups: hit; miss, a call was made; shared, one under way was joined; bypass, the caller wanted its own",
            *("cache", "result"),
        )
        self.cache_bytes = self._gauge("atp_cache_memory_bytes", "Bytes of cached answers in this process's memory")
        self.cache_entries = self._gauge("atp_cache_memory_entries", "Cached answers in this process's memory")
        self.cache_evictions = self._counter("atp_cache_evictions", "Cached answers dropped to make room for others")

    def _tasks(self) -> None:
        self.tasks = self._counter(
            "atp_tasks",
            "Tasks, callbacks: done, failed, cancelled; retried, others being at fault; recovered from a dead worker",
            *("task", "outcome"),
        )
        self.task_duration = self._histogram(
            "atp_task_duration_seconds",
            "Time of a task's last run, from its start to its end; of each try of a callback",
            "task",
            buckets=TASK_RUN_S,
        )
        self.task_queue_wait = self._histogram(
            "atp_task_queue_wait_seconds",
            *("From a task's submission, or its not_before, to its first start", "queue"),
            buckets=TASK_WAIT_S,
        )

    def _sockets(self) -> None:
        self.ws_connections = self._gauge("atp_ws_connections", "WebSockets open on this node", "device")
        self.ws_handshakes = self._counter("atp_ws_handshakes", "WebSocket handshakes by what became of them", "result")
        self.ws_disconnects = self._counter(
            "atp_ws_disconnects",
            "WebSockets ended, by who closed first and the close code; no_pong, slow_reader and cut (a drain) had none",
            *("initiator", "code"),
        )
        self.ws_duration = self._histogram(
            "atp_ws_connection_duration_seconds", "How long a WebSocket lived", buckets=WS_LIFE_S
        )
        self.ws_messages = self._counter("atp_ws_messages", "WebSocket messages", "direction", "type")
        self.ws_bytes = self._counter("atp_ws_message_bytes", "Bytes of WebSocket messages", "direction")
        self.ws_handle = self._histogram("atp_ws_handle_duration_seconds", "Time to take in a client message", "type")
        self.ws_rtt = self._histogram("atp_ws_ping_rtt_seconds", "From a ping to its pong")

    def _process(self, version: str, revision: str) -> None:
        self.loop_lag = self._histogram("atp_event_loop_lag_seconds", "Lateness of a timer on the event loop")
        self.telemetry_dropped = self._counter(
            "atp_telemetry_dropped", "Telemetry lost because its sink was slow", "signal"
        )
        self.build = Info("atp_build", "Version and revision of this process", registry=self.registry)
        self.build.info({"version": version, "revision": revision})
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Iterable[float] = LATENCY_S) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=tuple(buckets))

    def _start_at_zero(self) -> None:
        """Create every known label set, so that a first failure is a rise from 0 and not a new series."""
        known: tuple[tuple[Counter | Gauge | Histogram, tuple[str, ...]], ...] = (
            (self.auth_failures, AUTH_FAILURES),
            (self.bus_messages, BUS_DIRECTIONS),
            (self.blocked_requests, BLOCKED),
            (self.connections_cut, CONNECTIONS_CUT),
            (self.delivery_lag, BUS_KINDS),
            (self.telemetry_dropped, TELEMETRY_SIGNALS),
            (self.usage_rows, USAGE_OUTCOMES),
            (self.unhandled, UNHANDLED),
            (self.dependency_up, DEPENDENCIES),
            (self.task_duration, TASKS),
            (self.task_queue_wait, TASK_QUEUES),
            (self.ws_connections, DEVICES),
            (self.ws_handshakes, WS_HANDSHAKES),
        )
        for metric, values in known:
            for value in values:
                metric.labels(value)
        for labels in product(RATE_POLICIES, ("allowed", "limited")):
            self.ratelimit_decisions.labels(*labels)
        for labels in product(CACHES, CACHE_RESULTS):
            self.cache_requests.labels(*labels)
        for labels in product(TASKS, TASK_OUTCOMES):
            self.tasks.labels(*labels)
        for direction, types in (("in", WS_IN), ("out", WS_OUT)):
            self.ws_bytes.labels(direction)
            for type_ in types:
                self.ws_messages.labels(direction, type_)
        self.degraded.labels("redis", "memory")

    def observe_pool(self, pool: str, stats: Callable[[], dict[str, int]]) -> None:
        """Read a connection pool's gauges from `stats()` at each scrape: keys idle, used, max, pending."""
        for state in ("idle", "used"):
            self.pool_connections.labels(pool, state).set_function(lambda state=state: stats()[state])  # type: ignore[misc]
        self.pool_max.labels(pool).set_function(lambda: stats()["max"])
        self.pool_pending.labels(pool).set_function(lambda: stats()["pending"])
