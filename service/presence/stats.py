"""The counts as callers see them."""

from typing import Any

from service.presence.sessions import Counts, Peak


def described(counts: Counts, degraded: bool) -> dict[str, Any]:
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


def peak(found: Peak) -> dict[str, Any]:
    return {"users": found.users, "at": found.at.isoformat() if found.at else None}
