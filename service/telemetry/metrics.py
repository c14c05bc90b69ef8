"""The catalogue of every metric ATP exports: what it counts, its labels and their values.

Names follow OpenTelemetry's semantic conventions in Prometheus form where one exists, else `atp_…`. One process is one
scrape target, so each process has one `Metrics` with a registry of its own, built in `wiring.py`. A metric is added
here first. Label values come from closed sets or route templates; never an id.
"""

from collections.abc import Callable, Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.gc_collector import GCCollector

# The SLO thresholds 0.25 s and 0.5 s are bucket edges, so that the SLO is counted and not interpolated.
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MODEL_LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)

AUTH_FAILURES = ("missing", "malformed", "unknown", "revoked", "expired", "inactive_user", "scope")
CONNECTIONS_CUT = (
    "connection_refused",
    "writer_stalled",
    "message_oversize",
    "app_failed",
    "connection_failed",
    "drain_cut",
    "request_refused",
    "deadline",
)
DEPENDENCIES = ("postgresql", "redis")
TELEMETRY_SIGNALS = ("logs", "traces", "errors")
USAGE_OUTCOMES = ("stored", "failed")
UNHANDLED = ("http", "websocket", "task", "background")


class Metrics:
    """Every series of one process, in the catalogue's groups."""

    def __init__(self, version: str = "0", revision: str = "unknown") -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
        self.registry = CollectorRegistry(auto_describe=True)
        self._http()
        self._usage()
        self._models()
        self._dependencies()
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

    def _usage(self) -> None:
        self.usage_rows = self._counter("atp_usage_rows", "Usage rows by what became of them", "outcome")

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
        known: tuple[tuple[Counter | Gauge, tuple[str, ...]], ...] = (
            (self.auth_failures, AUTH_FAILURES),
            (self.connections_cut, CONNECTIONS_CUT),
            (self.telemetry_dropped, TELEMETRY_SIGNALS),
            (self.usage_rows, USAGE_OUTCOMES),
            (self.unhandled, UNHANDLED),
            (self.dependency_up, DEPENDENCIES),
        )
        for metric, values in known:
            for value in values:
                metric.labels(value)
        self.degraded.labels("redis", "memory")

    def observe_pool(self, pool: str, stats: Callable[[], dict[str, int]]) -> None:
        """Read a connection pool's gauges from `stats()` at each scrape: keys idle, used, max, pending."""
        for state in ("idle", "used"):
            self.pool_connections.labels(pool, state).set_function(lambda state=state: stats()[state])  # type: ignore[misc]
        self.pool_max.labels(pool).set_function(lambda: stats()["max"])
        self.pool_pending.labels(pool).set_function(lambda: stats()["pending"])
