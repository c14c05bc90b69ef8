"""`/api/admin`: statistics, broadcasts, disconnecting and blocking users, draining nodes. All need the scope admin."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from service.admin.audit import Actor
from service.errors import Conflict, NotFound
from service.http.body import read_json
from service.http.contract import answers
from service.http.operation import Call
from service.presence.stats import OnlineUsers
from service.routes.admin_actions import AdminActions
from service.routes.admin_answers import (
    BroadcastAnswer,
    DashboardAnswer,
    DisconnectAnswer,
    DrainAnswer,
    LiftAnswer,
    OnlineUsersPage,
    SystemAnswer,
    WebSocketAnswer,
)
from service.routes.admin_requests import (
    BroadcastRequest,
    DisconnectRequest,
    DrainRequest,
    Model,
    NodeRequest,
    PageQuery,
    RetryHeader,
    UserPath,
    fitted,
)
from service.routes.admin_stats import AdminStats


class AdminRoutes:
    """Statistics from `stats`; `actions` audits what it does before it does it."""

    def __init__(self, actions: AdminActions, stats: AdminStats) -> None:
        self._actions, self._stats = actions, stats

    @answers(OnlineUsers)
    async def online_users(self, call: Call[None]) -> Response:
        """Count the users who are online."""
        return answer(await self._stats.online_users())

    @answers(SystemAnswer)
    async def system(self, call: Call[None]) -> Response:
        """Show this node's resources, and every node's card."""
        return answer(await self._stats.system())

    @answers(WebSocketAnswer)
    async def websocket(self, call: Call[None]) -> Response:
        """Count the open WebSockets."""
        return answer(await self._stats.websocket())

    @answers(DashboardAnswer)
    async def dashboard(self, call: Call[None]) -> Response:
        """Show all statistics at once."""
        return answer(await self._stats.dashboard())

    @answers(OnlineUsersPage, query=PageQuery)
    async def online(self, call: Call[None]) -> Response:
        """List the users who are online, page by page."""
        query = fitted(PageQuery, call.request.query_params)
        return answer(await self._stats.online_page(query.cursor, query.limit))

    @answers(BroadcastAnswer, status=202, headers=RetryHeader, errors=(Conflict,))
    async def broadcast(self, call: Call[BroadcastRequest]) -> Response:
        """Send a message to everybody's WebSockets, or to those of some users or devices."""
        return answer(await self._actions.broadcast(actor(call), call.body, idempotency_key(call)), 202)

    @answers(DisconnectAnswer, segments=UserPath)
    async def disconnect(self, call: Call[DisconnectRequest]) -> Response:
        """Close a user's WebSockets, and keep the user out for a time if asked."""
        return answer(await self._actions.disconnect(actor(call), user_id(call), call.body))

    @answers(LiftAnswer, segments=UserPath, errors=(NotFound,))
    async def lift_block(self, call: Call[None]) -> Response:
        """Let a blocked user in again."""
        return answer(await self._actions.lift_block(actor(call), user_id(call)))

    @answers(DrainAnswer, status=202, query=DrainRequest, query_as_body=True, errors=(NotFound,))
    async def drain(self, call: Call[None]) -> Response:
        """Move a node's WebSockets to other nodes, `rate` a second."""
        asked = await query_or_body(call, DrainRequest)
        return answer(await self._actions.drain(actor(call), asked.node, asked.rate), 202)

    @answers(DrainAnswer, status=202, query=NodeRequest, query_as_body=True, errors=(NotFound,))
    async def end_drain(self, call: Call[None]) -> Response:
        """Let a node take WebSockets again."""
        asked = await query_or_body(call, NodeRequest)
        return answer(await self._actions.drain(actor(call), asked.node, 0.0), 202)


def answer(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


def actor(call: Call[Any]) -> Actor:
    return Actor(call.identity.user_id, call.identity.key_prefix, call.request_id)


def user_id(call: Call[Any]) -> str:
    """From a path such as `/api/admin/users/{user_id:path}/block`: an imported id may hold a slash."""
    return fitted(UserPath, call.request.path_params).user_id


def idempotency_key(call: Call[Any]) -> str | None:
    """The header as sent, None without it; raises Invalid unless it is 1 to 128 printable characters."""
    sent = call.request.headers.get("idempotency-key")
    return fitted(RetryHeader, {"Idempotency-Key": sent}).key


async def query_or_body(call: Call[None], model: type[Model]) -> Model:
    """Parameters from the query and, where one was sent, from a JSON body, which counts more.

    A body that went unread would have its `node` overlooked, and the wrong node drained.
    """
    asked = fitted(model, call.request.query_params)
    headers = call.request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return asked
    body = await read_json(call.request, model)
    return asked.model_copy(update=body.model_dump(exclude_unset=True))
