"""`/api/v1/sessions`: a user's own conversations; another's are not there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import to_json
from starlette.responses import Response

from service.agents.session_records import SessionInfo, Turn
from service.agents.sessions import LIMIT_MAX, Sessions
from service.http.contract import answers
from service.http.operation import Call
from service.routes.admin_requests import STRICT, Id, fitted, printable
from service.routes.session_answers import SessionAnswer, SessionItem, SessionsPage, TurnItem

UNCACHED = ("Cache-Control",)


class SessionsQuery(BaseModel):
    model_config = STRICT
    cursor: Annotated[str, Field(max_length=128), AfterValidator(printable)] = ""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 20


class ConversationPath(BaseModel):
    session_id: Id


class ConversationRoutes:
    """What it answers is somebody's words, so nobody on the way may keep it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @answers(SessionsPage, query=SessionsQuery, tells=UNCACHED)
    async def list_sessions(self, call: Call[None]) -> Response:
        """List your conversations, the newest first, page by page."""
        query = fitted(SessionsQuery, call.request.query_params)
        answered = await self._sessions.page(call.identity.user_id, query.cursor, query.limit)
        page = answered.result
        listed = [described(info) for info in page.sessions]
        return answer(SessionsPage(sessions=listed, next_cursor=page.next_cursor or None, degraded=answered.degraded))

    @answers(SessionAnswer, segments=ConversationPath, tells=UNCACHED)
    async def read(self, call: Call[None]) -> Response:
        """Read a conversation."""
        kept = await self._sessions.read(call.identity.user_id, session_id(call))
        turns = [turn_of(turn) for turn in kept.turns]
        return answer(SessionAnswer(**described(kept.info), turns=turns))

    @answers(None, status=204, segments=ConversationPath, tells=UNCACHED)
    async def delete(self, call: Call[None]) -> Response:
        """Forget a conversation."""
        await self._sessions.delete(call.identity.user_id, session_id(call))
        return Response(status_code=204, headers={"cache-control": "no-store"})


def session_id(call: Call[None]) -> str:
    return fitted(ConversationPath, call.request.path_params).session_id


def answer(content: Mapping[str, Any]) -> Response:
    return Response(to_json(content), headers={"cache-control": "no-store"}, media_type="application/json")


def described(info: SessionInfo) -> SessionItem:
    return {
        "session_id": info.session_id,
        "title": info.title,
        "created_at": moment(info.created_at),
        "last_at": moment(info.last_at),
        "messages": info.messages,
    }


def turn_of(turn: Turn) -> TurnItem:
    said = TurnItem(role=turn.role, content=turn.content, at=moment(turn.at))
    if turn.role == "assistant":
        said["agent"] = turn.agent
    return said


def moment(unix_s: float) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
