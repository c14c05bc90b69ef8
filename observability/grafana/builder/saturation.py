"""Panels of what may be full, late or away, for every dashboard that shows it."""

from observability.grafana.builder import limits
from observability.grafana.builder.limits import CONTEXT, NoLimits, above
from observability.grafana.builder.links import on_instance, to_board
from observability.grafana.builder.panels import Panel, lines, states
from observability.grafana.builder.query import OURS, Q, fleet, held, quantile, rate, select, share


def socket_capacity(width: int = 8) -> Panel:
    return lines(
        "Sockets of the limit",
        "Open sockets of those that an instance takes (MAX_WEBSOCKET_CONNECTIONS). AtpWSCapacity has this limit.",
        "percentunit",
        above(limits.NEARLY_FULL),
        Q(
            share(held("atp_ws_connections", by="instance"), held("atp_ws_connections_max", by="instance")),
            "{{instance}}",
        ),
        links=on_instance(),
        width=width,
        most=1,
    )


def cpu(width: int = 8) -> Panel:
    return lines(
        "CPU",
        "Share of one core: a process is one event loop, so 100 % is all it can use.",
        "percentunit",
        above(limits.FULL, limits.NEARLY_FULL),
        Q(f"max by (job, instance) ({rate('process_cpu_seconds_total', OURS)})", "{{job}} {{instance}}"),
        links=on_instance(),
        width=width,
    )


def memory(width: int = 8) -> Panel:
    return lines(
        "Memory",
        "Resident memory of each process.",
        "bytes",
        NoLimits("its bound is the container's limit, which Prometheus does not know"),
        Q(f"max by (job, instance) ({select('process_resident_memory_bytes', OURS)})", "{{job}} {{instance}}"),
        links=on_instance(),
        width=width,
    )


def pool_use(width: int = 8) -> Panel:
    return lines(
        "Database connections of the pool",
        "Connections in use of those the pool may open. AtpPoolExhausted fires when all are and callers wait.",
        "percentunit",
        above(1, limits.NEARLY_FULL),
        Q(
            share(
                held("db_client_connection_count", 'state="used"', by="pool, instance"),
                held("db_client_connection_max", by="pool, instance"),
            ),
            "{{pool}} {{instance}}",
        ),
        links=on_instance(),
        width=width,
        most=1,
    )


def redis_memory(width: int = 8) -> Panel:
    return lines(
        "Redis memory",
        "What Redis uses, and its limit (none: no line). AtpRedisMemoryHigh fires over 80 % of the limit.",
        "bytes",
        NoLimits("the limits are lines of their own"),
        Q(fleet("redis_memory_used_bytes"), "used"),
        Q(f"{fleet('redis_memory_max_bytes')} > 0", "limit"),
        Q(f"{limits.NEARLY_FULL} * ({fleet('redis_memory_max_bytes')} > 0)", "AtpRedisMemoryHigh"),
        empty="no snapshot",
        width=width,
    )


def loop_lag(width: int = 8) -> Panel:
    return lines(
        "Event loop lag, p99",
        "How late a timer was: everything waits for the loop. AtpLoopLagHigh has this limit.",
        "s",
        above(limits.LOOP_LAG_S),
        Q(quantile(0.99, "atp_event_loop_lag_seconds", by="instance"), "{{instance}}"),
        links=on_instance(),
        width=width,
    )


def queue_depth(width: int = 8) -> Panel:
    return lines(
        "Queues",
        "Tasks and callbacks that wait, are scheduled for later, or run.",
        "short",
        CONTEXT,
        Q(fleet("queue_depth", by="queue, state"), "{{queue}} {{state}}"),
        links=[to_board("atp-tasks-models", "Tasks & models")],
        empty="no snapshot",
        width=width,
    )


def queue_age(width: int = 8) -> Panel:
    return lines(
        "Oldest waiting task",
        "How long the task at the head of the queue has waited. AtpQueueStuck fires from 10 min on if none gets done, "
        "and from an hour on.",
        "s",
        above(limits.QUEUE_LATE_S, limits.QUEUE_OLD_S),
        Q(fleet("queue_oldest_age_seconds", by="queue"), "{{queue}}"),
        empty="no snapshot",
        width=width,
    )


def dependencies(width: int = 12) -> Panel:
    return states(
        "Dependencies",
        "Whether the last contact succeeded; down: for one instance at least.",
        limits.DOWN,
        Q(held("atp_dependency_up", by="dependency", how="min"), "{{dependency}}"),
        values={"1": "up", "0": "down"},
        width=width,
    )


def degraded(width: int = 12) -> Panel:
    return states(
        "Degraded",
        "Whether memory stands in for a dependency on one instance at least.",
        limits.ANY,
        Q(held("atp_degraded", by="dependency, mode", how="max"), "{{dependency}}: {{mode}}"),
        values={"1": "degraded", "0": "as ever"},
        width=width,
    )
