"""What a Redis server says of itself."""

import asyncio
import time
from typing import Any

from redis.asyncio import Redis

TIMEOUT_S = 5


async def commands_per_s(redis_url: str, seconds: float) -> float:
    """Over so many seconds; our own looks (INFO) are not counted."""
    async with Redis.from_url(redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as redis:
        before, began = await commands(redis), time.monotonic()
        await asyncio.sleep(seconds)
        after, ended = await commands(redis), time.monotonic()
    return (after - before) / (ended - began)


async def commands(redis: Any) -> int:
    """Calls of every command but INFO since the server started."""
    stats = await redis.info("commandstats")
    return sum(int(one["calls"]) for name, one in stats.items() if name != "cmdstat_info")


async def used_bytes(redis: Any) -> int:
    return int((await redis.info("memory"))["used_memory"])
