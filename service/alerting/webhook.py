"""What Alertmanager posts: version 4 of its webhook (its documentation, "webhook_config").

Members that are not named here are ignored: a later Alertmanager may send more.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field

Status = Literal["firing", "resolved"]
# Prometheus bounds neither; what is sent on is cut (`events.py`).
Labels = dict[str, str]

CHECK_IN = "check_in"
# More in one group are an alert that should be grouped otherwise; Alertmanager's `max_alerts` cuts them.
MOST_ALERTS = 1000


class Alert(BaseModel):
    """One alert of a group. `fingerprint` is Alertmanager's own, of all the alert's labels."""

    status: Status
    labels: Labels
    annotations: Labels = {}
    starts_at: AwareDatetime = Field(alias="startsAt")
    generator_url: str = Field("", alias="generatorURL")
    fingerprint: Annotated[str, Field(min_length=1, max_length=64)]

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "unnamed")

    @property
    def monitor(self) -> str | None:
        """The slug of the Sentry monitor that this alert keeps alive; None for an alert about something."""
        return self.labels.get(CHECK_IN)


class Notification(BaseModel):
    """One group, all of its alerts; `truncated` is how many more there are."""

    version: Literal["4"]
    group_labels: Labels = Field(alias="groupLabels")
    truncated: Annotated[int, Field(ge=0)] = Field(0, alias="truncatedAlerts")
    alerts: Annotated[list[Alert], Field(max_length=MOST_ALERTS)]
