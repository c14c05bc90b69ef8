"""What administrators see: the fleet's counts, this node's state, and every node's card."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast

from service.devices import DEVICES, Device
from service.errors import StateUnavailable
from service.presence.stats import OnlineUsers
from service.routes.admin_answers import (
    Card,
    DashboardAnswer,
    HubStats,
    OnlineUser,
    OnlineUsersPage,
    PoolStats,
    RedisStats,
    SystemAnswer,
    WebSocketAnswer,
)
from service.telemetry.system import Sample

Result = TypeVar("Result", covariant=True)


class Answered(Protocol[Result]):
    """`degraded`: of this node alone, since Redis is away or there is none."""

    @property
    def result(self) -> Result: ...
    @property
    def degraded(self) -> bool: ...


class OnlinePage(Protocol):
    @property
    def users(self) -> Sequence[tuple[str, int, int]]:
        """(user_id, sockets, rest_sessions)"""
        ...

    @property
    def next_cursor(self) -> str | None: ...


class Fleet(Protocol):
    """What is known of all nodes; of this one only where `degraded`."""

    async def get_stats(self) -> OnlineUsers: ...
    async def sockets(self, users: list[str] | None = None, devices: list[Device] | None = None) -> Answered[int]: ...
    async def online_page(self, cursor: str, limit: int) -> Answered[OnlinePage]: ...
    async def nodes(self) -> Answered[list[dict[str, Any]]]: ...


class OwnSockets(Protocol):
    def stats(self) -> dict[str, Any]: ...


class System(Protocol):
    def sample(self) -> Sample: ...


class AdminStats:
    """`node` is this node's name; `pool` gives its PostgreSQL pool's state, `redis` what its Redis says of itself."""

    def __init__(
        self,
        node: str,
        fleet: Fleet,
        own: OwnSockets,
        system: System,
        pool: Callable[[], dict[str, int]],
        redis: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._node, self._fleet, self._own, self._system = node, fleet, own, system
        self._pool, self._redis = pool, redis

    async def online_users(self) -> OnlineUsers:
        return await self._fleet.get_stats()

    async def system(self) -> SystemAnswer:
        """This node's process, machine and connections, and under `fleet` the cards of all nodes (or its own alone)."""
        redis, cards = await asyncio.gather(self._redis_or_none(), self._fleet.nodes())
        sample = self._system.sample()
        return {
            "node": self._node,
            "process": sample["process"],
            "machine": sample["machine"],
            "database": cast(PoolStats, self._pool()),
            "redis": redis,
            "fleet": cast(list[Card], cards.result),
            "degraded": cards.degraded,
        }

    async def websocket(self) -> WebSocketAnswer:
        """The fleet's sockets by device, this node's hub, and per node what the cards say."""
        counting = (self._fleet.sockets(devices=[device]) for device in DEVICES)
        answers, cards = await asyncio.gather(asyncio.gather(*counting), self._fleet.nodes())
        counts = [answered.result for answered in answers]
        return {
            "sockets": sum(counts),
            "devices": dict(zip(DEVICES, counts, strict=True)),
            "node": cast(HubStats, {"node": self._node, **self._own.stats()}),
            "nodes": cast(list[Card], cards.result),
            "degraded": cards.degraded or any(answered.degraded for answered in answers),
        }

    async def dashboard(self) -> DashboardAnswer:
        """All of it, as of one moment."""
        online, system, websocket = await asyncio.gather(self.online_users(), self.system(), self.websocket())
        at = datetime.now(UTC).isoformat()
        return {"at": at, "node": self._node, "online_users": online, "system": system, "websocket": websocket}

    async def online_page(self, cursor: str, limit: int) -> OnlineUsersPage:
        """One page of the users who are online; raises Invalid for a cursor that is none of ours."""
        answered = await self._fleet.online_page(cursor, limit)
        page = answered.result
        users = [OnlineUser(user_id=id_, sockets=sockets, rest_sessions=rest) for id_, sockets, rest in page.users]
        return {"users": users, "next_cursor": page.next_cursor or None, "degraded": answered.degraded}

    async def _redis_or_none(self) -> RedisStats | None:
        """None while Redis is away: the rest is wanted most just then."""
        try:
            return cast(RedisStats, await self._redis())
        except StateUnavailable:
            return None
