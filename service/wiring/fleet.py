"""The fleet's snapshot: what it is made of, and who takes it."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from service.admin.store import select_moments
from service.errors import StateUnavailable
from service.fleet.snapshots import Snapshots, Source
from service.fleet.store import Fleet, MemoryFleet, RedisFleet
from service.keys.block_store import count_blocks
from service.presence.stats import PeakUsers
from service.presence.tracker import Tracker
from service.state.redis import RedisState
from service.tasks.oversight_store import select_depth
from service.telemetry.fleet_metrics import Snapshot
from service.usage.busiest import select_busiest
from service.wiring.ground import Ground

BUSIEST_KEYS = 20


def open_fleet(ground: Ground, tracker: Tracker) -> None:
    """Export the fleet's values from this node, and take its turns at finding them out."""
    fleet: Fleet = RedisFleet(ground.redis) if ground.redis else MemoryFleet()
    sources: dict[str, Source] = {
        "presence": Online(tracker, fleet, ZoneInfo(ground.settings.presence_zone), shared=bool(ground.redis)).read,
        "postgresql": lambda: from_tables(ground),
    }
    if redis := ground.redis:
        sources["redis"] = lambda: memory_of(redis)
    snapshots = Snapshots(fleet, sources)
    ground.metrics.observe_fleet(snapshots.current)
    ground.work["fleet"] = snapshots.run


class Online:
    """Who is online; `shared`: over all nodes, so that this one's own count alone is no answer."""

    def __init__(self, tracker: Tracker, fleet: Fleet, zone: ZoneInfo, *, shared: bool) -> None:
        self._tracker, self._fleet, self._zone, self._shared = tracker, fleet, zone, shared

    async def read(self) -> Snapshot:
        """Raises StateUnavailable while Redis is away."""
        stats, cards = await self._tracker.get_stats(), await self._tracker.nodes()
        if self._shared and (stats["degraded"] or cards.degraded):
            raise StateUnavailable("presence")
        day = datetime.now(self._zone).date().isoformat()
        sockets_today, sockets_ever = await self._fleet.sockets_peak(day, stats["sockets"])
        peaks = {"day": stats["peak"]["today"], "all_time": stats["peak"]["all_time"]}
        return {
            "online_users": plain(stats["online_users"]),
            "online_users_peak": labelled({window: peak["users"] for window, peak in peaks.items()}),
            "online_users_peak_timestamp_seconds": labelled(moments(peaks)),
            "ws_connections_peak": labelled({"day": sockets_today, "all_time": sockets_ever}),
            "active_users": labelled(stats["active_users"]),
            "sessions": labelled(stats["devices"]),
            "nodes": plain(stats["nodes"]),
            "presence_drift": plain(max((card.get("presence_drift", 0.0) for card in cards.result), default=0.0)),
        }


async def from_tables(ground: Ground) -> Snapshot:
    """Raises DatabaseUnavailable."""
    async with ground.db.connection("select_fleet") as connection:
        depth, blocks = await select_depth(connection), await count_blocks(connection)
        busiest = await select_busiest(connection, BUSIEST_KEYS)
        broadcast, backup = await select_moments(connection)
    depths = {"ready": depth.ready, "scheduled": depth.scheduled, "running": depth.running}
    queue = [(("chat", state), float(tasks)) for state, tasks in depths.items()]
    return {
        "queue_depth": [*queue, (("callbacks", "ready"), float(depth.callbacks))],
        "queue_oldest_age_seconds": labelled({"chat": depth.oldest_age_s}),
        "blocked_users": labelled(blocks),
        "top_api_key_requests": labelled(busiest),
        "last_broadcast_timestamp_seconds": plain(broadcast),
        "last_backup_timestamp_seconds": plain(backup),
    }


async def memory_of(redis: RedisState) -> Snapshot:
    """Raises StateUnavailable."""
    stats = await redis.stats()
    return {
        "redis_memory_used_bytes": plain(stats["memory_used_bytes"]),
        "redis_memory_max_bytes": plain(stats["memory_max_bytes"]),
    }


def plain(value: float) -> list[tuple[tuple[str, ...], float]]:
    return [((), float(value))]


def labelled(values: Mapping[str, float] | Mapping[str, int]) -> list[tuple[tuple[str, ...], float]]:
    """Of a metric with one label."""
    return [((label,), float(value)) for label, value in values.items()]


def moments(peaks: Mapping[str, PeakUsers]) -> dict[str, float]:
    """As Unix time; a peak that never was has none."""
    return {window: datetime.fromisoformat(peak["at"]).timestamp() for window, peak in peaks.items() if peak["at"]}
