"""Which keys ask most, as a sliding window over the hourly sums: the last hour's count by the part of it that is within
the trailing sixty minutes, and this hour's whole (the estimate of the rate limits' windows)."""

from typing import Any

from psycopg import AsyncConnection

SELECT_BUSIEST = """
WITH recent AS (
    SELECT key_hash, sum(requests * CASE WHEN start = date_trunc('hour', now(), 'UTC') THEN 1 ELSE
        1 - extract(epoch FROM now() - date_trunc('hour', now(), 'UTC')) / 3600 END) AS requests
    FROM usage_hourly WHERE start >= date_trunc('hour', now(), 'UTC') - interval '1 hour' GROUP BY key_hash
), ranked AS (
    SELECT coalesce(api_keys.prefix, 'other') AS prefix, requests,
           row_number() OVER (ORDER BY requests DESC, api_keys.prefix) AS place
    FROM recent LEFT JOIN api_keys USING (key_hash)
)
SELECT CASE WHEN place <= %s THEN prefix ELSE 'other' END AS key_id, round(sum(requests))::float8
FROM ranked GROUP BY 1"""


async def select_busiest(connection: AsyncConnection[Any], keys: int) -> dict[str, float]:
    """Requests of the trailing hour by key prefix: the busiest `keys`, and `other` for the rest together."""
    found = await (await connection.execute(SELECT_BUSIEST, (keys,))).fetchall()
    return {"other": 0.0} | dict(found)
