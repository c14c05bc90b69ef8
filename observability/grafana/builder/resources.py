"""Processes and what they stand on: CPU, memory, files, the loop, pools, PostgreSQL, Redis, the scrape itself."""

from observability.grafana.builder import limits, overview, saturation, shared
from observability.grafana.builder.board import Board
from observability.grafana.builder.limits import CONTEXT, TRAFFIC, NoLimits, above
from observability.grafana.builder.links import on_instance, to_logs, to_traces
from observability.grafana.builder.panels import Panel, bars, lines
from observability.grafana.builder.query import OURS, Q, counted, held, quantile, rate, select, share

OPERATIONS = "db_client_operation_duration_seconds"


def board() -> Board:
    it = Board("atp-resources", "ATP · Resources", "CPU, memory, event loop, connections, dependencies.")
    it.row(
        "Processes", [saturation.cpu(), saturation.memory(), saturation.loop_lag()], [_files(), _virtual(), _uptime()]
    )
    it.row("Garbage", [_collections(), _collected(), _uncollectable()])
    it.row(
        "What they stand on",
        [saturation.dependencies(), saturation.degraded()],
        [_database_time(), _operations(), _p99()],
    )
    it.row("Pools", [saturation.pool_use(), _connections(), _waiting()], [_wait_time(), saturation.redis_memory(12)])
    it.row("Telemetry", [_samples(), _scrape(), _overflow()], [shared.telemetry_lost(24)])
    it.row("Who they are", [overview.instance_table(), overview.instances()])
    return it


def _each(series: str) -> str:
    return f"max by (job, instance) ({select(series, OURS)})"


def _files() -> Panel:
    return lines(
        "Open files",
        "File descriptors in use of those allowed; each socket is one.",
        "percentunit",
        above(limits.FULL, limits.NEARLY_FULL),
        Q(share(_each("process_open_fds"), _each("process_max_fds")), "{{job}} {{instance}}"),
        links=on_instance(),
        most=1,
    )


def _virtual() -> Panel:
    return lines(
        "Virtual memory",
        "Address space of each process.",
        "bytes",
        CONTEXT,
        Q(_each("process_virtual_memory_bytes"), "{{job}} {{instance}}"),
        links=on_instance(),
    )


def _uptime() -> Panel:
    return lines(
        "Uptime",
        "Since the process started; a line that falls to 0 is a restart.",
        "s",
        CONTEXT,
        Q(f"time() - {_each('process_start_time_seconds')}", "{{job}} {{instance}}"),
        links=[
            *on_instance(),
            to_traces('{ resource.service.name = "atp" && status = error }', "Failed traces"),
            to_logs('{job=~"atp.*"} | json | event=~".*(start|stop|drain).*"', "Starts and stops"),
        ],
    )


def _collections() -> Panel:
    return lines(
        "Collections",
        "Runs of Python's garbage collector, by generation; 2 is the one that stalls.",
        "cps",
        CONTEXT,
        Q(f"sum by (generation) ({rate('python_gc_collections_total', OURS)})", "{{generation}}"),
    )


def _collected() -> Panel:
    return lines(
        "Objects collected",
        "Objects in cycles that it freed, by generation.",
        "cps",
        CONTEXT,
        Q(f"sum by (generation) ({rate('python_gc_objects_collected_total', OURS)})", "{{generation}}"),
    )


def _uncollectable() -> Panel:
    return lines(
        "Uncollectable objects",
        "Objects that it could not free.",
        "cps",
        limits.ANY_RATE,
        Q(f"sum by (generation) ({rate('python_gc_objects_uncollectable_total', OURS)})", "{{generation}}"),
        empty="none",
    )


def _database_time() -> Panel:
    return lines(
        "Time of a PostgreSQL operation, p95",
        "By operation, as this side saw it.",
        "s",
        above(limits.LATENCY_SLO_S, 0.1),
        Q(quantile(0.95, OPERATIONS, 'system="postgresql"', by="operation"), "{{operation}}", exemplars=True),
        links=on_instance()[1:],
        empty="no operations",
    )


def _operations() -> Panel:
    return lines(
        "Operations",
        "Operations a second of PostgreSQL and Redis.",
        "ops",
        TRAFFIC,
        Q(counted(f"{OPERATIONS}_count", by="system"), "{{system}}"),
        empty="no operations",
    )


def _p99() -> Panel:
    return lines(
        "Time of an operation, p99",
        "PostgreSQL and Redis, by instance: one that is slower than its peers has the trouble itself.",
        "s",
        above(limits.LATENCY_SLO_S),
        Q(quantile(0.99, OPERATIONS, by="system, instance"), "{{system}} {{instance}}"),
        links=on_instance(),
        empty="no operations",
    )


def _connections() -> Panel:
    return lines(
        "Connections",
        "Connections by pool and state, and how many the pools may open.",
        "short",
        NoLimits("the limit is a line of its own"),
        Q(held("db_client_connection_count", by="pool, state"), "{{pool}} {{state}}"),
        Q(held("db_client_connection_max", by="pool"), "{{pool}} limit"),
    )


def _waiting() -> Panel:
    return lines(
        "Callers waiting for a connection",
        "AtpPoolExhausted fires when they stay.",
        "short",
        limits.ANY,
        Q(held("db_client_connection_pending_requests", by="pool, instance"), "{{pool}} {{instance}}"),
        links=on_instance(),
        empty="nobody waits",
    )


def _wait_time() -> Panel:
    return lines(
        "Wait for a connection",
        "How long callers waited, by pool.",
        "s",
        above(limits.LATENCY_SLO_S, 0.1),
        Q(quantile(0.95, "db_client_connection_wait_time_seconds", by="pool"), "{{pool}} p95"),
        Q(quantile(0.99, "db_client_connection_wait_time_seconds", by="pool"), "{{pool}} p99"),
        empty="nobody waited",
        width=12,
    )


def _samples() -> Panel:
    return bars(
        "Samples of a scrape",
        "Series of each instance; designed for less than 1,500. AtpCardinality fires on more.",
        "short",
        above(limits.SAMPLES),
        Q(f"max by (job, instance) ({select('scrape_samples_scraped')})", "{{job}} {{instance}}"),
        links=on_instance(),
    )


def _scrape() -> Panel:
    return lines(
        "Time of a scrape",
        "How long Prometheus waited; much of it the event loop is busy.",
        "s",
        above(1, 0.25),
        Q(f"max by (job, instance) ({select('scrape_duration_seconds')})", "{{job}} {{instance}}"),
        links=on_instance(),
    )


def _overflow() -> Panel:
    return lines(
        "Labels that became `other`",
        "Observations whose label had no room any more, by metric. AtpCardinality fires on any.",
        "cps",
        limits.ANY_RATE,
        Q(counted("atp_label_overflow_total", by="metric"), "{{metric}}"),
        empty="none",
    )
