"""The rate limiter beside the `limits` library's own over the same Redis: checks a second, CPU and waiting of each.

A check of theirs is what an answer with headers needs: `hit`, then `get_window_stats`. Both use redis-py.

Run: python -m bench.limiter_load redis://… [seconds]     (a Redis that is nobody else's)
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.limits.hits import Windows
from service.limits.limiter import RateLimiter
from service.limits.memory import MemoryWindows
from service.limits.policies import POLICIES, Policies
from service.limits.redis import RedisWindows
from service.settings import load
from service.state.breaker import Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics

RATE = "1000000/second"  # every check is admitted: the dear case
SUBJECTS = 200
CALLERS = (1, 16)
WARM_S = 0.2

Check = Callable[[str], Awaitable[object]]
Figures = dict[str, float]


async def measure(url: str, seconds: float) -> Figures:
    """`<ours|theirs>_<callers>_<checks_s|cpu_us|p50_us|p99_us>`; raises where Redis did not answer in time."""
    metrics = Metrics()
    redis = RedisState(load(redis_url=url, redis_request_timeout=5.0), metrics)
    breaker = Breaker(redis.ping, metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory"))
    windows = Failover[Windows](breaker, RedisWindows(redis), MemoryWindows())
    limiter = RateLimiter(windows, Policies(dict.fromkeys(POLICIES, RATE)), metrics)
    storage = RedisStorage(f"async+{url}", implementation="redispy")
    strategy, item = SlidingWindowCounterRateLimiter(storage), parse(RATE)

    async def ours(subject: str) -> None:
        if (await limiter.hit("chat", subject)).degraded:
            raise RuntimeError("memory stood in")

    async def theirs(subject: str) -> None:
        await strategy.hit(item, subject)
        await strategy.get_window_stats(item, subject)

    figures: Figures = {}
    for callers in CALLERS:
        for name, check in (("ours", ours), ("theirs", theirs)):
            await rounds(check, callers, WARM_S)
            found = await rounds(check, callers, seconds)
            figures |= {f"{name}_{callers}_{figure}": value for figure, value in found.items()}
    await redis.close()
    return figures


async def rounds(check: Check, callers: int, seconds: float) -> Figures:
    """So many callers, each asking again as soon as it is answered."""
    durations: list[float] = []
    ends_at, cpu_s, started = time.perf_counter() + seconds, time.process_time(), time.perf_counter()

    async def call(caller: int) -> None:
        number = caller
        while time.perf_counter() < ends_at:
            begun = time.perf_counter()
            await check(f"subject-{number % SUBJECTS}")
            durations.append(time.perf_counter() - begun)
            number += callers

    await asyncio.gather(*(call(caller) for caller in range(callers)))
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    return {"checks_s": len(durations) / took_s, "cpu_us": cpu_s / len(durations) * 1e6, **quantiles(durations)}


def quantiles(durations: list[float]) -> Figures:
    ordered = sorted(durations)
    return {"p50_us": ordered[len(ordered) // 2] * 1e6, "p99_us": ordered[int(len(ordered) * 0.99)] * 1e6}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 3.0)), indent=1))
