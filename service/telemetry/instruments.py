"""How a metric is made: in the process's own registry, its known label sets at 0."""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.telemetry.labels import LATENCY_S

Instrument = Counter | Gauge | Histogram


class Instruments:
    """What every group of the catalogue is made with."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Iterable[float] = LATENCY_S) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=tuple(buckets))

    @staticmethod
    def _known(instrument: Instrument, *values: Iterable[str]) -> None:
        """Create every label set of these values, so that a first failure is a rise from 0 and not a new series."""
        for labels in product(*values):
            instrument.labels(*labels)
