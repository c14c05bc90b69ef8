"""The catalogue's fleet side: values of all nodes together, taken by one of them and exported by each.

Each node exports the same, so they may only ever stand under `max`. While there is no fresh snapshot nothing is
exported: never 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# By a metric's name without its prefix: its values, each with the values of its labels.
Snapshot = Mapping[str, Sequence[tuple[Sequence[str], float]]]

PREFIX = "atp_fleet_"


@dataclass(frozen=True)
class FleetMetric:
    name: str
    text: str
    labels: tuple[str, ...] = ()


FLEET = (
    FleetMetric("online_users", "Users online"),
    FleetMetric("online_users_peak", "Most users online at once: today (PRESENCE_ZONE), and ever", ("window",)),
    FleetMetric("online_users_peak_timestamp_seconds", "When that was, as Unix time", ("window",)),
    FleetMetric("ws_connections_peak", "Most WebSockets open at once, looked at every 10 s", ("window",)),
    FleetMetric("active_users", "Users seen in the last day, week, month (HyperLogLog, within 1 %)", ("window",)),
    FleetMetric("sessions", "Sessions: sockets, and REST clients heard of in the last minute", ("device",)),
    FleetMetric("blocked_users", "Blocks in force, by what is blocked: a key, a user, an address", ("reason",)),
    FleetMetric(
        "top_api_key_requests",
        "Requests with a usage row in the last 60 minutes, of the 20 busiest keys by their prefix, and of all others; "
        "the hour before this one counts by the part of it that is within",
        ("key_id",),
    ),
    FleetMetric("queue_depth", "Tasks, callbacks that could start now, start later, run", ("queue", "state")),
    FleetMetric("queue_oldest_age_seconds", "How long the oldest that waits could have been running", ("queue",)),
    FleetMetric("redis_memory_used_bytes", "Memory that Redis uses, of a cluster's primaries together"),
    FleetMetric("redis_memory_max_bytes", "Memory that Redis may use; 0: no limit is set"),
    FleetMetric("nodes", "Nodes that hold a lease"),
    FleetMetric("presence_drift", "Difference of counters and recount, the largest that a node found; expected 0"),
    FleetMetric("last_broadcast_timestamp_seconds", "When a broadcast was last ordered, as Unix time; 0: never"),
    FleetMetric("last_backup_timestamp_seconds", "When a backup was last recorded, as Unix time; 0: never"),
    FleetMetric("snapshot_timestamp_seconds", "When all this was taken, as Unix time"),
    FleetMetric("snapshot_duration_seconds", "How long it took"),
)


class FleetCollector(Collector):
    """Exports what `current` gives; None: there is no fresh one."""

    def __init__(self, current: Callable[[], Snapshot | None]) -> None:
        self._current = current

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [family(metric) for metric in FLEET]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        snapshot = self._current() or {}
        for metric in FLEET:
            if values := snapshot.get(metric.name):
                told = family(metric)
                for labels, value in values:
                    told.add_metric(labels, value)
                yield told


def family(metric: FleetMetric) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + metric.name, metric.text, labels=metric.labels)
