"""`/api/v1/presence/heartbeat`: how a client without a socket says that it is here."""

import secrets
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import TypedDict

from service.devices import Device, device_of
from service.http.contract import answers
from service.http.operation import Call
from service.presence.sessions import REST_TTL_S
from service.presence.tracker import Tracker

Id = Annotated[str, Field(min_length=1, max_length=128)]


class HeartbeatRequest(BaseModel):
    """`session_id` is absent in the first heartbeat, and in every later one the id that the first was answered with."""

    model_config = ConfigDict(extra="forbid")
    session_id: Id | None = None
    client_id: Id | None = None
    device_type: Device | None = None


class SessionPath(BaseModel):
    session_id: Id


class HeartbeatAnswer(TypedDict):
    """`session_id` goes into the next heartbeat, which is due before `expires_in_s` seconds are over."""

    session_id: str
    expires_in_s: int


class PresenceRoutes:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    @answers(HeartbeatAnswer)
    async def heartbeat(self, call: Call[HeartbeatRequest]) -> Response:
        """Be online for the next 60 s."""
        body, session_id = call.body, call.body.session_id or secrets.token_hex(8)
        device = device_of(body.device_type or "", call.request.headers.get("user-agent", ""))
        await self._tracker.heartbeat(call.identity.user_id, session_id, body.client_id or session_id, device)
        answer = HeartbeatAnswer(session_id=session_id, expires_in_s=REST_TTL_S)
        return Response(to_json(answer), media_type="application/json")

    @answers(None, status=204, segments=SessionPath)
    async def leave(self, call: Call[None]) -> Response:
        """Be online no longer."""
        await self._tracker.end_heartbeat(call.request.path_params["session_id"], call.identity.user_id)
        return Response(status_code=204)
