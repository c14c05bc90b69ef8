"""Reports of usage from the hourly and daily sums, the current ones included: exact to the last commit.

Their cost depends on how many keys, agents and models were used in how many hours or days, not on how many requests.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg.rows import dict_row

from service.db.pool import Database
from service.errors import Invalid
from service.usage.quantiles import BUCKETS, quantiles

Interval = Literal["day", "hour", "total"]
Dimension = Literal["key", "agent", "model", "user"]

MOST_ITEMS = 10_000
ROWS_ON_LOOP = 100  # under a millisecond; another thread would cost as much
COUNTS = ("requests", "errors", "cancelled", "cached", "tokens_in", "tokens_out", "cost_usd")
# A key that is no longer there has no name.
COLUMNS = {
    "start": "sums.start",
    "key": "coalesce(api_keys.prefix, 'unknown')",
    "agent": "sums.agent",
    "model": "sums.model",
    "user": "sums.user_id",
}
TABLES = {"hour": "usage_hourly", "day": "usage_daily", "total": "usage_daily"}
# PostgreSQL sums bigint to numeric, which is dear to read.
SUMS = ", ".join(f"sum({name})::{'float8' if name == 'cost_usd' else 'bigint'} AS {name}" for name in COUNTS)
DURATIONS = ", ".join(f"sum(durations[{number}])" for number in range(1, BUCKETS + 1))
# The server ends a query whose caller has given up: one that is only cut off runs to its end.
LIMIT_TIME = "SELECT set_config('statement_timeout', %s, true)"
# Unset parameters are null and match everything.
SELECT_USAGE = """
SELECT {shown} {sums}, ARRAY[{durations}]::bigint[] AS durations
FROM {table} AS sums LEFT JOIN api_keys ON api_keys.key_hash = sums.key_hash
WHERE sums.start >= %(start)s AND sums.start < %(end)s AND {of_user}
  AND (%(key)s::text IS NULL OR api_keys.prefix = %(key)s OR %(key)s = 'unknown' AND api_keys.prefix IS NULL)
  AND (%(agent)s::text IS NULL OR sums.agent = %(agent)s)
  AND (%(model)s::text IS NULL OR sums.model = %(model)s)
{grouped} LIMIT %(limit)s"""


@dataclass(frozen=True)
class Question:
    """Of [start, end), whole hours or days (UTC). `user` None is everybody; the other filters None match all."""

    start: datetime
    end: datetime
    interval: Interval
    group_by: tuple[Dimension, ...]
    user: str | None
    key: str | None = None
    agent: str | None = None
    model: str | None = None


class Reports:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def report(self, question: Question) -> dict[str, Any]:
        """`{totals, items}`, both with latency quantiles; items in order of time, then of what they are grouped by.

        Raises:
            Invalid: more than MOST_ITEMS items.
            DatabaseUnavailable: not within DB_TIMEOUT.
        """
        async with self._db.connection("select_usage") as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(LIMIT_TIME, (f"{self._db.timeout_s * 1000:.0f}ms",))
            await cursor.execute(statement(question).encode(), parameters(question))
            rows = await cursor.fetchall()
        if len(rows) > MOST_ITEMS:
            raise Invalid(f"More than {MOST_ITEMS:,} items: narrow from and to, group by less, or filter.")
        if len(rows) <= ROWS_ON_LOOP:
            return composed(rows)
        return await asyncio.to_thread(composed, rows)  # ten thousand take a tenth of a second


def statement(question: Question) -> str:
    """The query; nothing a caller wrote is part of its text."""
    by = [*(["start"] if question.interval != "total" else []), *question.group_by]
    columns = ", ".join(COLUMNS[name] for name in by)
    return SELECT_USAGE.format(
        shown="".join(f'{COLUMNS[name]} AS "{name}", ' for name in by),
        sums=SUMS,
        durations=DURATIONS,
        table=TABLES[question.interval],
        of_user="true" if question.user is None else "sums.user_id = %(user)s",
        grouped=f"GROUP BY {columns} ORDER BY {columns}" if by else "",
    )


def parameters(question: Question) -> dict[str, Any]:
    names = ("start", "end", "user", "key", "agent", "model")
    return {"limit": MOST_ITEMS + 1, **{name: getattr(question, name) for name in names}}


def composed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["requests"]]  # a total of nothing is one row of nulls
    durations = [sum(column) for column in zip(*(row["durations"] for row in rows), strict=True)]
    totals = measures({name: sum(row[name] for row in rows) for name in COUNTS} | {"durations": durations})
    return {"totals": totals, "items": [item(row) for row in rows]}


def item(row: dict[str, Any]) -> dict[str, Any]:
    about = {name: row[name] for name in COLUMNS if name in row}
    if "start" in about:
        about["start"] = about["start"].astimezone(UTC)  # PostgreSQL's own time zone may be another
    return about | measures(row)


def measures(row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in COUNTS}, "latency_s": quantiles(row["durations"])}
