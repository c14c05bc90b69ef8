"""`DELETE /api/admin/cache`: what was cached until now, of one agent or of all, is served no more."""

from typing import Protocol

from starlette.responses import Response

from service.admin.audit import Action, Actor, Audit
from service.agents.catalogue import Catalogue
from service.cache.flushes import Flushed
from service.http.contract import answers
from service.http.operation import Call
from service.live.messages import Flush
from service.routes.admin import actor, answer
from service.routes.admin_actions import Bus
from service.routes.admin_answers import FlushAnswer

EVERYTHING = "everything"  # the target in the audit trail


class Flushing(Protocol):
    async def flush(self, group: str | None) -> Flushed: ...


class AdminCacheRoutes:
    """A flush is audited first, then holds on this node at once, and is said on the bus.

    Where the answer is `degraded` the other nodes hear of it when Redis is back.
    """

    def __init__(self, audit: Audit, cache: Flushing, bus: Bus, agents: Catalogue) -> None:
        self._audit, self._cache, self._bus, self._agents = audit, cache, bus, agents

    @answers(FlushAnswer)
    async def flush_all(self, call: Call[None]) -> Response:
        """Forget every cached answer."""
        return answer(await self._flush(actor(call), None))

    @answers(FlushAnswer)
    async def flush_agent(self, call: Call[None]) -> Response:
        """Forget the cached answers of one agent."""
        agent = self._agents.agent(call.request.path_params["agent_id"])
        return answer(await self._flush(actor(call), agent.id))

    async def _flush(self, by: Actor, agent_id: str | None) -> FlushAnswer:
        """Raises DatabaseUnavailable: it cannot be audited; nothing was done."""
        recorded = await self._audit.record(Action(by, "flush_cache", agent_id or EVERYTHING, {}))
        flushed = await self._cache.flush(agent_id)
        said = await self._bus.publish(Flush(id=str(recorded.id), group=agent_id, before_ms=flushed.before_ms))
        return {"id": str(recorded.id), "agent": agent_id, "degraded": flushed.degraded or said.degraded}
