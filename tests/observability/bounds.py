"""What nobody can say to the last one: times, sizes, what the clock makes of background work. By `Query.name`."""

from tests.observability.reading import Among, Bounds


def within(least: float, most: float, labels: str = "", *rows: str) -> Bounds:
    """Each series that there is, by its labels' values in the order of their names, and no other."""
    names = labels.split()
    return {tuple(zip(names, row.split(), strict=True)): (least, most) for row in rows or ("",)}


BOUNDS: dict[str, Bounds] = {
    "atp-cache / Redis memory / A": within(500000, 50000000),
    "atp-http-slo / Error budget left / A": within(
        -1000, 1, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-http-slo / Burn rate over 1h / A": within(
        0, 1000, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-http-slo / Burn rate over 6h / A": within(
        0, 1000, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-http-slo / Burn rate over 3d / A": within(
        0, 1000, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-http-slo / Response time / A": within(1e-05, 2),
    "atp-http-slo / Response time / B": within(1e-05, 2),
    "atp-http-slo / Response time / C": within(1e-05, 2),
    "atp-http-slo / Response times / A": within(
        0.1, 500, "le", "+Inf", "0.01", "0.05", "0.25", "0.5", "1.0", "10.0", "2.5"
    ),
    "atp-limits-keys / Time to check a limit / A": within(1e-05, 0.5),
    "atp-limits-keys / Time to check a limit / B": within(1e-05, 0.5),
    "atp-on-call / Error budget left / A": within(
        -1000, 1, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-on-call / Since the last backup / A": within(0, 600),
    "atp-on-call / Alerts to Sentry / A": within(0, 100, "outcome", "failed", "refused", "sent", "unset"),
    "atp-on-call / Check-ins to Sentry / A": within(0, 100, "outcome", "failed", "sent", "unset"),
    "atp-online-users / Age of the snapshot / A": within(0, 30),
    "atp-online-users / Time to take the snapshot / A": within(1e-05, 2),
    "atp-online-users / Since the peak / A": within(0, 600, "window", "all_time", "day"),
    "atp-online-users / Since the last broadcast / A": within(0, 600),
    "atp-overview / Error budget left / A": within(
        -1000, 1, "slo", "availability", "latency", "presence_freshness", "ws_delivery"
    ),
    "atp-overview / Response time / A": within(1e-05, 2),
    "atp-overview / Response time / B": within(1e-05, 2),
    "atp-overview / Response time / C": within(1e-05, 2),
    "atp-overview / WebSocket delivery lag / A": within(1e-05, 2),
    "atp-overview / WebSocket delivery lag / B": within(1e-05, 2, "kind", "push"),
    "atp-overview / CPU / A": within(0.0001, 2, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"),
    "atp-overview / Memory / A": within(
        20000000, 2000000000, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"
    ),
    "atp-overview / Event loop lag, p99 / A": within(1e-05, 2, "instance", "atp-0", "atp-1", "atp-worker-0"),
    "atp-overview / Redis memory / A": within(500000, 50000000),
    "atp-resources / CPU / A": within(0.0001, 2, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"),
    "atp-resources / Memory / A": within(
        20000000, 2000000000, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"
    ),
    "atp-resources / Event loop lag, p99 / A": within(1e-05, 2, "instance", "atp-0", "atp-1", "atp-worker-0"),
    "atp-resources / Open files / A": within(
        1e-05, 0.9, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"
    ),
    "atp-resources / Virtual memory / A": within(
        100000000, 20000000000, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"
    ),
    "atp-resources / Uptime / A": within(1, 600, "instance job", "atp-0 atp", "atp-1 atp", "atp-worker-0 atp-worker"),
    "atp-resources / Collections / A": within(0, 100, "generation", "0", "1", "2"),
    "atp-resources / Objects collected / A": within(0, 100000, "generation", "0", "1", "2"),
    "atp-resources / Operations / A": within(0.5, 1000, "system", "postgresql", "redis"),
    "atp-resources / Time of an operation, p99 / A": within(
        1e-05,
        2,
        "instance system",
        "atp-0 postgresql",
        "atp-0 redis",
        "atp-1 postgresql",
        "atp-1 redis",
        "atp-worker-0 postgresql",
        "atp-worker-0 redis",
    ),
    "atp-resources / Database connections of the pool / A": within(
        0, 1, "instance pool", "atp-0 postgresql", "atp-1 postgresql", "atp-worker-0 postgresql"
    ),
    "atp-resources / Connections / A": within(0, 30, "pool state", "postgresql idle", "postgresql used"),
    "atp-resources / Wait for a connection / A": within(1e-05, 2, "pool", "postgresql"),
    "atp-resources / Wait for a connection / B": within(1e-05, 2, "pool", "postgresql"),
    "atp-resources / Redis memory / A": within(500000, 50000000),
    "atp-resources / Samples of a scrape / A": within(
        10,
        3000,
        "instance job",
        "atp-0 atp",
        "atp-1 atp",
        "atp-bridge-0 atp-bridge",
        "atp-worker-0 atp-worker",
        "prometheus-0 prometheus",
    ),
    "atp-resources / Time of a scrape / A": within(
        1e-05,
        2,
        "instance job",
        "atp-0 atp",
        "atp-1 atp",
        "atp-bridge-0 atp-bridge",
        "atp-worker-0 atp-worker",
        "prometheus-0 prometheus",
    ),
    "atp-tasks-models / Wait before a task starts / A": within(1e-05, 2, "queue", "chat"),
    "atp-tasks-models / Wait before a task starts / B": within(1e-05, 2, "queue", "chat"),
    "atp-tasks-models / Time of a task / A": within(1e-05, 2, "task", "chat"),
    "atp-tasks-models / Time of a task / B": within(1e-05, 2, "task", "chat"),
    "atp-tasks-models / Time of a model call, p95 / A": within(1e-05, 2, "model", "good", "overloaded", "refuses"),
    "atp-tasks-models / Time to the first piece, p95 / A": within(1e-05, 2, "model provider", "good scripted"),
    "atp-websockets / Lifetime of sockets / A": within(0.05, 300),
    "atp-websockets / Lifetime of sockets / B": within(0.05, 300),
    "atp-websockets / Ping round trip / A": within(1e-05, 2),
    "atp-websockets / Ping round trip / B": within(1e-05, 2),
    "atp-websockets / Time to take in a message, p95 / A": within(1e-05, 2, "type", "chat", "invalid", "ping"),
    "atp-websockets / WebSocket delivery lag / A": within(1e-05, 2),
    "atp-websockets / WebSocket delivery lag / B": within(1e-05, 2, "kind", "push"),
    "atp-on-call / Alerts firing / A": within(0, 6),
    "atp-overview / Alerts firing / A": within(0, 6),
    "atp-overview / Database connections of the pool / A": within(
        0, 1, "instance pool", "atp-0 postgresql", "atp-1 postgresql", "atp-worker-0 postgresql"
    ),
}
# These series among others: what all do is certain, when is not.
AMONG: dict[str, Among] = {
    "atp-cache / Time of a Redis operation, p95 / A": Among(
        "operation", {"bus_publish", "cache", "limit_hit", "ping", "presence_change", "slot_take"}, 0.00001, 2
    ),
    "atp-cache / Redis operations / A": Among(
        "operation", {"bus_publish", "cache", "limit_hit", "ping", "presence_change", "slot_take"}, 0, 1000
    ),
    "atp-resources / Time of a PostgreSQL operation, p95 / A": Among(
        "operation",
        {
            "begin_tasks",
            "cancel_task",
            "finish_task",
            "insert_admin_audit",
            "insert_tasks",
            "insert_usage",
            "select_key",
        },
        0.00001,
        2,
    ),
    "atp-http-slo / Response time by route, p95 / A": Among(
        "http_route",
        {
            *("/api/admin/broadcast", "/api/v1/chat", "/api/v1/models", "/api/v1/tasks", "/api/v1/tasks/{task_id}"),
            "unmatched",
        },
        0.00001,
        2,
    ),
    "atp-tasks-models / Since periodic work last succeeded / A": Among(
        "task",
        {"blocks", "task-cleaning", "task-recovery", "task-schedule", "usage-partitions"},
        0,
        600,
    ),
}
# Held by nothing but that they show what they should while something is broken, or that they change.
NOT_HELD = {
    "atp-on-call / Alerts over time / A": "which alerts fire while everything begins is a matter of seconds",
    "atp-on-call / Firing alerts / A": "shows nothing unless something is wrong, and is asked then",
    "atp-overview / Firing alerts / A": "shows nothing unless something is wrong, and is asked then",
}
