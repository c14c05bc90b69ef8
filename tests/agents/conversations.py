"""Sessions as nodes would have them, over one Redis or with memory alone."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from redis import Redis, RedisCluster

from service.agents.session_records import Bounds, SessionStore, Turn
from service.agents.sessions import Sessions
from service.agents.sessions_memory import MemorySessions
from service.agents.sessions_redis import RedisSessions
from service.background import end
from service.settings import load
from service.state.breaker import SUCCESSES_TO_CLOSE, Breaker
from service.state.failover import Failover
from service.state.redis import RedisState
from service.state.writing import Writing
from service.telemetry.metrics import Metrics

BOUNDS = Bounds(ttl_s=60, messages=6, bytes=1000, sessions_per_user=3)
NOON = 1_700_000_000.0  # 2023-11-14T22:13:20Z


class Desk(Sessions):
    """One node's sessions, with what a test looks into."""

    memory: MemorySessions
    breaker: Breaker
    metrics: Metrics


class Desks:
    """`watch` false: outages are made by hand, with `cut` and `mend`."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def start(self, url: str = "", bounds: Bounds = BOUNDS, watch: bool = True, **settings: Any) -> Desk:
        memory = MemorySessions(bounds)
        if not url:
            desk = Desk(Failover[SessionStore](None, None, memory), memory)
            desk.memory = memory
            return desk
        if not watch:
            settings.setdefault("redis_request_timeout", 5)
        metrics = Metrics()
        state = RedisState(load(redis_url=url, **settings), metrics)
        self._stack.push_async_callback(state.close)
        up, degraded = metrics.dependency_up.labels("redis"), metrics.degraded.labels("redis", "memory")
        breaker, shared = Breaker(state.ping, up, degraded, write=Writing(state).check), RedisSessions(state, bounds)
        desk = Desk(Failover[SessionStore](breaker, shared, memory), memory, shared)
        desk.memory, desk.breaker, desk.metrics = memory, breaker, metrics
        if watch:
            self._stack.push_async_callback(end, asyncio.create_task(breaker.run()))
            self._stack.push_async_callback(end, asyncio.create_task(desk.run()))
        return desk


def cut(desk: Desk) -> None:
    desk.breaker.failed("cut")
    desk.breaker.failed("cut")


async def mend(desk: Desk) -> None:
    for _ in range(SUCCESSES_TO_CLOSE):
        await desk.breaker.probe()
    assert desk.breaker.closed


def exchange(task: str, *answers: str, at: float = NOON) -> list[Turn]:
    asked = Turn("user", task, at=at)
    return [asked, *(Turn("assistant", answer, "reasoning", at + 1) for answer in answers or (f"re: {task}",))]


async def said(sessions: Sessions, user: str = "ana", session: str = "s") -> list[str]:
    return [message.content for message in await sessions.history(user, session)]


async def listed(sessions: Sessions, user: str = "ana") -> list[str]:
    return [info.session_id for info in (await sessions.page(user)).result.sessions]


def keys_of(client: "Redis | RedisCluster") -> list[str]:
    found: Any = client.keys("*")
    return sorted(key.decode() for key in found)
