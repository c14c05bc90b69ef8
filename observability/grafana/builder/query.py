"""Queries. What one process counts is summed, what the fleet's snapshot says is only ever put under max.

`counted`, `held`, `quantile` and `fleet` take a series' name, the labels to keep, and matchers as PromQL writes them
(`direction="in"`). Each selects by the dashboard's `$job` and `$instance`.
"""

from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOKI = common.DataSourceRef(type_val="loki", uid="atp-loki")
POSTGRESQL = common.DataSourceRef(type_val="grafana-postgresql-datasource", uid="atp-postgresql")

# Prometheus and Alertmanager export process_… too; these are ATP's own processes.
OURS = 'job=~"atp|atp-worker"'

# What the Prometheus datasource makes of an answer. Of `heatmap` it sorts the series by `le` and takes out of each
# bucket those below it, which a histogram counts too; otherwise they stay in, and the slowest looks the fullest.
Shape = Literal["time_series", "table", "heatmap"]


CHOSEN = ('job=~"$job"', 'instance=~"$instance"')


def select(series: str, *matchers: str) -> str:
    return f"{series}{{{', '.join((*CHOSEN, *matchers))}}}"


def _aggregated(how: str, by: str, expression: str) -> str:
    return f"{how} by ({by}) ({expression})" if by else f"{how}({expression})"


def rate(series: str, *matchers: str) -> str:
    return f"rate({select(series, *matchers)}[$__rate_interval])"


def counted(series: str, *matchers: str, by: str = "") -> str:
    """A counter's rate per second, of all processes."""
    return _aggregated("sum", by, rate(series, *matchers))


def held(series: str, *matchers: str, by: str = "", how: str = "sum") -> str:
    """A gauge of all processes together; `how` is max or min where a sum has no meaning."""
    return _aggregated(how, by, select(series, *matchers))


def fleet(series: str, *matchers: str, by: str = "") -> str:
    """A value of the fleet: every node exports the same snapshot, so the sum would count it once for each."""
    return _aggregated("max", by, select(f"atp_fleet_{series}", *matchers))


def quantile(q: float, series: str, *matchers: str, by: str = "") -> str:
    """`series` is the histogram's name without `_bucket`."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {counted(f'{series}_bucket', *matchers, by=labels)})"


def share(part: str, whole: str) -> str:
    """`part` of `whole`, 0 to 1; nothing, not NaN, while the whole is 0."""
    return f"{part} / ({whole} > 0)"


def label_join(expression: str, into: str, *labels: str) -> str:
    """The values of the labels as one label, with a space between; without it where there is none."""
    names = ", ".join(f'"{label}"' for label in labels)
    joined = f'label_join({expression}, "{into}", " ", {names})'
    return f'label_replace({joined}, "{into}", "$1", "{into}", " *(.*?) *")'


@dataclass(frozen=True)
class Q:
    """One PromQL query of a panel, and how its lines are called."""

    expr: str
    legend: str = ""
    exemplars: bool = False  # only for a `_bucket`

    def target(self, ref_id: str, *, instant: bool, shape: Shape = "time_series") -> prometheus.Dataquery:
        query = prometheus.Dataquery().ref_id(ref_id).datasource(PROMETHEUS).expr(self.expr).legend_format(self.legend)
        query = query.instant() if instant else query.range()
        return query.format(shape).exemplar(self.exemplars)


@dataclass(frozen=True)
class LogQ:
    """A LogQL query; `lines` bounds what a panel fetches."""

    expr: str
    legend: str = ""
    lines: int = 200

    def target(self, ref_id: str, *, instant: bool, shape: Shape = "time_series") -> loki.Dataquery:
        query = loki.Dataquery().ref_id(ref_id).datasource(LOKI).expr(self.expr).legend_format(self.legend)
        return query.max_lines(self.lines).query_type("instant" if instant else "range")


@dataclass(frozen=True)
class Sql(variants.Dataquery):
    """A query of the usage tables; the SDK has no type for the PostgreSQL plugin's. Also its own builder."""

    sql: str
    ref_id: str = ""

    def target(self, ref_id: str, *, instant: bool, shape: Shape = "time_series") -> "Sql":
        return Sql(self.sql, ref_id)

    def build(self) -> "Sql":
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "refId": self.ref_id,
            "datasource": POSTGRESQL,
            "format": "table",
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": self.sql,
        }


Query = Q | LogQ | Sql
