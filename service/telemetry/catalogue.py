"""The catalogue as data, for the page that shows it and for whatever checks queries against it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry.bridge_metrics import BRIDGE_PREFIX, BridgeMetrics
from service.telemetry.fleet_metrics import FLEET, PREFIX
from service.telemetry.instruments import Instruments
from service.telemetry.metrics import Metrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}
OWN_LABELS = {"info": ("version", "revision")}
# The client library's own; they have no labels but `generation` and Python's version.
LIBRARY = {
    "process_cpu_seconds_total": (),
    "process_max_fds": (),
    "process_open_fds": (),
    "process_resident_memory_bytes": (),
    "process_start_time_seconds": (),
    "process_virtual_memory_bytes": (),
    "python_gc_collections_total": ("generation",),
    "python_gc_objects_collected_total": ("generation",),
    "python_gc_objects_uncollectable_total": ("generation",),
}


@dataclass(frozen=True)
class Entry:
    """One metric. `known`: of the labels whose values are there from the start, the values."""

    name: str
    kind: str
    labels: tuple[str, ...]
    known: Mapping[str, tuple[str, ...]]
    text: str

    @property
    def series(self) -> dict[str, tuple[str, ...]]:
        """The names of its series, and their labels."""
        own = (*self.labels, *OWN_LABELS.get(self.kind, ()))
        buckets = (*own, "le")
        return {self.name + suffix: buckets if suffix == "_bucket" else own for suffix in SUFFIXES[self.kind]}


def entries() -> list[Entry]:
    """Of each process first, then of the fleet, then of the alert bridge what no other process has."""
    fleet = [Entry(PREFIX + metric.name, "gauge", metric.labels, {}, metric.text) for metric in FLEET]
    bridge = [entry for entry in of_process(BridgeMetrics()) if entry.name.startswith(BRIDGE_PREFIX)]
    return [*of_process(Metrics()), *fleet, *bridge]


def of_process(metrics: Instruments) -> Iterator[Entry]:
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram | Info):
            labels = tuple(metric._labelnames)
            yield Entry(metric._name, metric._type, labels, known(metric, labels), metric._documentation)


def known(metric: MetricWrapperBase, labels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    samples = [sample for family in metric.collect() for sample in family.samples]
    found = {label: dict.fromkeys(sample.labels[label] for sample in samples) for label in labels}
    return {label: tuple(values) for label, values in found.items() if values}


def all_series() -> dict[str, frozenset[str]]:
    """Every name that a query may use, with its labels but those that Prometheus adds."""
    own = {name: frozenset(labels) for entry in entries() for name, labels in entry.series.items()}
    return own | {name: frozenset(labels) for name, labels in LIBRARY.items()}
