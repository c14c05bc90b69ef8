"""How a metric is made: in the process's own registry, its known label sets at 0."""

from collections.abc import Callable, Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.telemetry.bounded import OTHER, Bounded, Room
from service.telemetry.labels import BOUNDED, BOUNDED_SERIES, LATENCY_S

Instrument = Counter | Gauge | Histogram


class Instruments:
    """What every group of the catalogue is made with."""

    def __init__(self) -> None:
        self.registry, self._room = CollectorRegistry(auto_describe=True), Room(BOUNDED_SERIES)
        self.label_overflow = self._counter(
            "atp_label_overflow",
            "Observations told of as `other`, since a metric has as many series as it may",
            "metric",
        )
        self._known(self.label_overflow, BOUNDED)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Iterable[float] = LATENCY_S) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=tuple(buckets))

    def _bounded(
        self,
        metric: Histogram,
        most: int,
        other: Callable[..., tuple[str, ...]] = lambda *values: (OTHER,) * len(values),
    ) -> Bounded:
        """`metric` is one of labels.BOUNDED; `other`: the label values of what comes when it has `most`."""
        return Bounded(metric, self._room, most, other, self.label_overflow.labels(metric._name).inc)

    @staticmethod
    def _known(instrument: Instrument, *values: Iterable[str]) -> None:
        """Create every label set of these values, so that a first failure is a rise from 0 and not a new series."""
        for labels in product(*values):
            instrument.labels(*labels)
