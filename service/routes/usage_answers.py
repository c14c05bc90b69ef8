"""What is answered about usage."""

from datetime import datetime
from typing import NotRequired

from typing_extensions import TypedDict

from service.usage.reports import Dimension, Interval


class Latency(TypedDict):
    """Of the whole requests, in seconds; null without requests."""

    p50: float | None
    p95: float | None
    p99: float | None


class Measures(TypedDict):
    requests: int
    errors: int
    cancelled: int
    cached: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    latency_s: Latency


class UsageItem(Measures):
    """One hour or day, `start` its beginning, without it the whole; and one of what it is grouped by."""

    start: NotRequired[datetime]
    key: NotRequired[str]
    agent: NotRequired[str]
    model: NotRequired[str]
    user: NotRequired[str]


# "from" is no name that a class could have.
UsageAnswer = TypedDict(
    "UsageAnswer",
    {
        "from": datetime,
        "to": datetime,
        "interval": Interval,
        "group_by": list[Dimension],
        "totals": Measures,
        "items": list[UsageItem],
    },
)
