"""Panels from PostgreSQL, of what has no bound as labels: keys, users, agents. All read the hour's sums only.

The role is read-only and gives up after 10 s (postgresql-role.sql); every query has a time range and a LIMIT.
"""

from observability.grafana.builder.limits import NoLimits
from observability.grafana.builder.panels import Panel, figure, rows
from observability.grafana.builder.query import Sql

BUDGET = NoLimits("what is too dear is for the owner to say")
SUMS = """sum(requests) AS requests, sum(errors) AS errors, sum(tokens_in + tokens_out) AS tokens,
  sum(cost_usd)::float8 AS cost_usd"""
SUM_COLUMNS = {"requests": "Requests", "errors": "Errors", "tokens": "Tokens", "cost_usd": "Cost"}
# The hour in which the range begins is a row of its own, that began before it.
RANGE = "start >= date_trunc('hour', $__timeFrom()::timestamptz, 'UTC') AND start <= $__timeTo()::timestamptz"


def spend(width: int = 3) -> Panel:
    return figure(
        "Spend",
        "What the models cost in this time range, by whole hours.",
        "currencyUSD",
        BUDGET,
        Sql(f"SELECT coalesce(sum(cost_usd), 0)::float8 AS cost_usd FROM usage_hourly WHERE {RANGE}"),
        width=width,
    )


def top(title: str, about: str, column: str, heading: str, *, width: int = 8) -> Panel:
    """The 20 dearest of `column`, a column of usage_hourly."""
    sql = f"SELECT {column}, {SUMS}\nFROM usage_hourly WHERE {RANGE}\nGROUP BY 1 ORDER BY cost_usd DESC, 1 LIMIT 20"
    return _table(title, about, sql, {column: heading}, width)


def top_keys(width: int = 8) -> Panel:
    sql = (
        "SELECT prefix, name, dear.* FROM (\n"
        f"  SELECT key_hash, {SUMS}\n  FROM usage_hourly WHERE {RANGE}\n"
        "  GROUP BY 1 ORDER BY cost_usd DESC, 1 LIMIT 20) AS dear\n"
        "JOIN api_keys USING (key_hash) ORDER BY cost_usd DESC, prefix LIMIT 20"
    )
    return _table(
        "Dearest API keys",
        "The 20 keys that cost most in this time range, by their public prefix.",
        sql.replace("dear.*", "requests, errors, tokens, cost_usd"),
        {"prefix": "Key", "name": "Name"},
        width,
    )


def _table(title: str, about: str, sql: str, first: dict[str, str], width: int) -> Panel:
    return rows(
        title,
        about,
        "short",
        BUDGET,
        Sql(sql),
        columns={**first, **SUM_COLUMNS},
        units={"Cost": "currencyUSD"},
        empty="no usage in this time",
        width=width,
        height=9,
    )
