"""Conversations: kept in Redis, in this node's memory while it is away."""

from service.agents.session_records import Bounds, SessionStore
from service.agents.sessions import Sessions
from service.agents.sessions_memory import MemorySessions
from service.agents.sessions_redis import RedisSessions
from service.state.failover import Failover
from service.wiring.ground import Ground


def open_sessions(ground: Ground) -> Sessions:
    settings = ground.settings
    bounds = Bounds(
        ttl_s=settings.user_session_ttl,
        messages=settings.session_max_messages,
        bytes=settings.session_max_bytes,
        sessions_per_user=settings.sessions_per_user,
    )
    memory, shared = MemorySessions(bounds), RedisSessions(ground.redis, bounds) if ground.redis else None
    sessions = Sessions(Failover[SessionStore](ground.breaker, shared, memory), memory, shared)
    ground.work["sessions"] = sessions.run
    ground.stack.push_async_callback(sessions.close)
    return sessions
