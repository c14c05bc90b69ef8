"""The catalogue of every metric ATP exports: what it counts, its labels and their values.

Names follow OpenTelemetry's semantic conventions in Prometheus form where one exists, else `atp_…`. One process is one
scrape target, so each process has one `Metrics` with a registry of its own, built in `wiring/`. A metric is added
here first, or to the group it belongs to: `live_metrics.py`, `work_metrics.py`, `fleet_metrics.py`. Label values come
from closed sets, or from configuration, route templates and names in the code, of which so many are kept apart
(`labels.py`); never an id.
"""

from collections.abc import Callable

import prometheus_client
from prometheus_client import Histogram, Info, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from service.telemetry.bounded import OTHER
from service.telemetry.fleet_metrics import FleetCollector, Snapshot
from service.telemetry.labels import (
    AUTH_FAILURES,
    BLOCKED,
    CONNECTIONS_CUT,
    DB_OPERATIONS,
    DB_S,
    DEPENDENCIES,
    HTTP_ANSWERED,
    HTTP_FAILED,
    HTTP_REFUSED,
    HTTP_S,
    LIMIT_CHECK_S,
    RATE_POLICIES,
    TELEMETRY_SIGNALS,
    UNHANDLED,
)
from service.telemetry.live_metrics import LiveMetrics
from service.telemetry.work_metrics import WorkMetrics


class Metrics(LiveMetrics, WorkMetrics):
    """Every series of one process, in the catalogue's groups."""

    def __init__(self, version: str = "0", revision: str = "unknown") -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
        super().__init__()
        self._http()
        self._limits()
        self._dependencies()
        self._process(version, revision)

    def _http(self) -> None:
        self.http_duration = self._histogram(
            "http_server_request_duration_seconds",
            "Time from the request's head to the answer's last byte; route is the template, `unmatched` when none fits",
            *("http_request_method", "http_route", "http_response_status_code"),
            buckets=HTTP_S,
        )
        self._answered, self._refused, self._failed = (
            self._bounded(self.http_duration, most, other_request)
            for most in (HTTP_ANSWERED, HTTP_REFUSED, HTTP_FAILED)
        )
        self.http_active = self._gauge("http_server_active_requests", "Requests being answered")
        self.connections_cut = self._counter("atp_connections_cut", "Connections ATP ended to protect itself", "reason")
        self.unhandled = self._counter("atp_unhandled_exceptions", "Exceptions nobody foresaw", "component")
        self.auth_failures = self._counter("atp_auth_failures", "Requests refused for their API key", "reason")
        self._known(self.connections_cut, CONNECTIONS_CUT)
        self._known(self.unhandled, UNHANDLED)
        self._known(self.auth_failures, AUTH_FAILURES)

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
        self._known(self.ratelimit_decisions, RATE_POLICIES, ("allowed", "limited"))
        self._known(self.blocked_requests, BLOCKED)

    def _dependencies(self) -> None:
        self.db_duration = self._histogram(
            "db_client_operation_duration_seconds",
            "Time of one PostgreSQL or Redis operation",
            *("system", "operation"),
            buckets=DB_S,
        )
        self.db_durations = self._bounded(self.db_duration, DB_OPERATIONS, lambda system, _: (system, OTHER))
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
        self._known(self.dependency_up, DEPENDENCIES)
        self._known(self.degraded, ["redis"], ["memory"])

    def _process(self, version: str, revision: str) -> None:
        self.loop_lag = self._histogram("atp_event_loop_lag_seconds", "Lateness of a timer on the event loop")
        self.telemetry_dropped = self._counter(
            "atp_telemetry_dropped", "Telemetry lost: its sink was slow, away, or refused it", "signal"
        )
        self._known(self.telemetry_dropped, TELEMETRY_SIGNALS)
        self.build = Info("atp_build", "Version and revision of this process", registry=self.registry)
        self.build.info({"version": version, "revision": revision})
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def http_durations(self, method: str, route: str, status: int) -> Histogram:
        share = {4: self._refused, 5: self._failed}.get(status // 100, self._answered)
        return share(method, route, str(status))

    def observe_fleet(self, current: Callable[[], Snapshot | None]) -> None:
        """Export what `current()` gives at each scrape."""
        self.registry.register(FleetCollector(current))

    def observe_pool(self, pool: str, stats: Callable[[], dict[str, int]]) -> None:
        """Read a connection pool's gauges from `stats()` at each scrape: keys idle, used, max, pending."""
        for state in ("idle", "used"):
            self.pool_connections.labels(pool, state).set_function(lambda state=state: stats()[state])  # type: ignore[misc]
        self.pool_max.labels(pool).set_function(lambda: stats()["max"])
        self.pool_pending.labels(pool).set_function(lambda: stats()["pending"])


def other_request(_: str, __: str, status: str) -> tuple[str, ...]:
    """The class of the status stays, for what fails must not be lost among what does not; `5xx` is matched by `5..`."""
    return "_OTHER", OTHER, f"{status[0]}xx"
