"""What is answered about conversations; moments are of RFC 3339, in UTC."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class SessionItem(TypedDict):
    """`title` is how it began; `messages` is how many are kept, `last_at` when the last was said."""

    session_id: str
    title: str
    created_at: Moment
    last_at: Moment
    messages: int


class SessionsPage(TypedDict):
    """Go on with `next_cursor` until it is null. `degraded`: of this node alone, since Redis is away."""

    sessions: list[SessionItem]
    next_cursor: str | None
    degraded: bool


class TurnItem(TypedDict):
    """One message; `agent` is who answered."""

    role: Literal["user", "assistant"]
    agent: NotRequired[str]
    content: str
    at: Moment


class SessionAnswer(SessionItem):
    """A conversation, the oldest message first."""

    turns: list[TurnItem]
