"""The counts as callers see them."""

from typing_extensions import TypedDict

from service.presence.sessions import Counts, Peak


class PeakUsers(TypedDict):
    """Most users at once, and when (ISO 8601)."""

    users: int
    at: str | None


class Peaks(TypedDict):
    today: PeakUsers
    all_time: PeakUsers


class OnlineUsers(TypedDict):
    """The fleet's counts. `sessions` and `devices` count sockets and REST sessions; `active_users` those of a `day`,
    a `week` and a `month`, estimated."""

    online_users: int
    sessions: int
    sockets: int
    devices: dict[str, int]
    peak: Peaks
    active_users: dict[str, int]
    nodes: int
    degraded: bool


def described(counts: Counts, degraded: bool) -> OnlineUsers:
    return {
        "online_users": counts.online_users,
        "sessions": sum(counts.sessions.values()),
        "sockets": counts.sockets,
        "devices": counts.sessions,
        "peak": {"today": peak(counts.peak_today), "all_time": peak(counts.peak_all_time)},
        "active_users": counts.active_users,
        "nodes": counts.nodes,
        "degraded": degraded,
    }


def peak(found: Peak) -> PeakUsers:
    return {"users": found.users, "at": found.at.isoformat() if found.at else None}
