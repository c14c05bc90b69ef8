"""The catalogue of the alert bridge, a process of its own: what became of what on-call should hear."""

from prometheus_client import Info, ProcessCollector, disable_created_metrics

from service.telemetry.instruments import Instruments
from service.telemetry.labels import BRIDGE_ALERTS, BRIDGE_CHECK_INS, BRIDGE_REFUSED, BRIDGE_SIGNALS

BRIDGE_PREFIX = "atp_bridge_"


class BridgeMetrics(Instruments):
    def __init__(self, version: str = "0", revision: str = "unknown") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
        super().__init__()
        self.alerts = self._counter(
            "atp_bridge_alerts",
            "Alerts for Sentry: sent; failed, to be tried again; refused by Sentry for good; unset: there is no Sentry",
            "outcome",
        )
        self.refused = self._counter(
            "atp_bridge_refused_notifications",
            "Alertmanager's notifications that got 4xx, which it does not try again: wrong token, too large, garbled",
            "reason",
        )
        self.check_ins = self._counter(
            "atp_bridge_check_ins", "Check-ins of Sentry's monitors, by an alert that always fires", "outcome"
        )
        self.telemetry_dropped = self._counter(
            "atp_telemetry_dropped", "Telemetry lost: its sink was slow, away, or refused it", "signal"
        )
        self.unhandled = self._counter("atp_unhandled_exceptions", "Exceptions nobody foresaw", "component")
        self._known(self.unhandled, ["http"])
        self._known(self.alerts, BRIDGE_ALERTS)
        self._known(self.refused, BRIDGE_REFUSED)
        self._known(self.check_ins, BRIDGE_CHECK_INS)
        self._known(self.telemetry_dropped, BRIDGE_SIGNALS)
        Info("atp_build", "Version and revision of this process", registry=self.registry).info(
            {"version": version, "revision": revision}
        )
        ProcessCollector(registry=self.registry)
