"""The queries of the dashboards as they are sent once Grafana has filled in its variables, and what comes back."""

import math
import re
import time
from datetime import UTC, datetime
from typing import Any

from tests.observability.boards import Query
from tests.observability.monitoring import Monitoring

RATE_WINDOW = "15s"
RANGE = "60s"


# By a series' labels, in order: its values that are numbers.
Seen = dict[tuple[tuple[str, str], ...], list[float]]


def filled(text: str, job: str = ".+", instance: str = ".+") -> str:
    """As Grafana sends it, with everything chosen."""
    given = {
        "$__rate_interval": RATE_WINDOW,
        "$__range": RANGE,
        "$__interval": "1s",
        "${job:regex}": job,
        "${instance:regex}": instance,
        "$job": job,
        "$instance": instance,
    }
    for name, value in given.items():
        text = text.replace(name, value)
    assert "$" not in re.sub(r"\$\d", "", text), text
    return text


def in_sql(text: str, since: float) -> str:
    """With Grafana's macros of the time range, from `since`, as Unix time, until now."""
    for name, moment in (("$__timeFrom()", since), ("$__timeTo()", time.time())):
        text = text.replace(name, f"'{datetime.fromtimestamp(moment, UTC).isoformat()}'")
    assert "$" not in text, text
    return text


async def ask(prometheus: Monitoring, query: Query, since: float, instance: str = ".+") -> list[dict[str, Any]]:
    text = filled(query.text, instance=instance)
    return await (prometheus.instant(text) if query.instant else prometheus.ranged(text, since))


def seen(result: list[dict[str, Any]]) -> Seen:
    """What a person would see of it: NaN is a gap."""
    found = Seen()
    for series in result:
        values = [float(value) for _, value in series.get("values") or [series["value"]]]
        found[tuple(sorted(series["metric"].items()))] = [value for value in values if not math.isnan(value)]
    return found
