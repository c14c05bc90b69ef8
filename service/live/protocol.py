"""The language of `GET /ws/session`: every message, every close code; docs/websocket.md tells it to client authors.

A message is one JSON object in one text frame, with a `type`. Replies echo the `id` of what they answer; pushes carry
`seq`, the place in the fleet's log from which a client that reconnects goes on.
"""

from enum import IntEnum
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # typing's own do not serve pydantic before Python 3.12
)

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json
from typing_extensions import TypedDict

from service.devices import Device
from service.errors import Invalid

MOST_FIELDS = 16  # to tell what is wrong with each of thousands would take the node's time
MessageId = Annotated[str, Field(min_length=1, max_length=64)]


class Close(IntEnum):
    """Why a socket was closed (RFC 6455, 7.4; 4000 to 4099 tell the client to stay away until something changes)."""

    GOING_AWAY = 1001  # idle for too long, or the node is gone
    POLICY = 1008  # too many faults, or too many sockets of one key or address
    INTERNAL = 1011
    RESTART = 1012  # come back after the hint in the reason; the node drains
    TRY_LATER = 1013  # the node holds as many sockets as it may
    KEY_ENDED = 4001  # the API key was revoked, has expired, or its user is inactive
    DISCONNECTED = 4002  # by an administrator
    BLOCKED = 4003  # the user is kept out for a time


class Chat(BaseModel):
    """Ask an agent. The other fields are those of `POST /api/v1/chat`; the answer is always streamed."""

    model_config = ConfigDict(extra="allow")
    type: Literal["chat"]
    id: MessageId

    def request(self) -> dict[str, Any]:
        """The body that `POST /api/v1/chat` would have; raises Invalid for one with far too many fields."""
        fields = self.model_extra or {}
        if len(fields) > MOST_FIELDS:
            raise Invalid(f"A chat has at most {MOST_FIELDS} fields.")
        return fields


class Cancel(BaseModel):
    """End a chat early; what the model wrote until then is paid and accounted for."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["cancel"]
    id: MessageId


class Ping(BaseModel):
    """Is anybody there? Keeps an idle socket open."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["ping"]
    id: MessageId | None = None


ClientMessage = Annotated[Chat | Cancel | Ping, Field(discriminator="type")]
CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)
CLIENT_TYPES = ("chat", "cancel", "ping")


class Ready(TypedDict):
    """First of all: the client is counted as online, and reached from here on."""

    type: Literal["ready"]
    session_id: str
    user_id: str
    device: Device
    seq: str | None
    resumed: bool
    idle_timeout_s: float


class Delta(TypedDict):
    """The next piece of an answer."""

    type: Literal["delta"]
    id: str
    agent: str
    text: str


class Answer(TypedDict):
    """An agent has finished."""

    type: Literal["answer"]
    id: str
    agent: str
    model: str
    finish_reason: str
    cached: bool
    usage: dict[str, Any]


class Done(TypedDict):
    """A chat is over, and its usage durable, unless it was cancelled: then that is on its way."""

    type: Literal["done"]
    id: str
    chat_id: str
    usage: dict[str, Any]
    cancelled: NotRequired[bool]


class Error(TypedDict):
    """With `agent`: that one failed. Without: the message it answers had no other effect, or the chat is over."""

    type: Literal["error"]
    id: NotRequired[str]
    problem: dict[str, Any]
    agent: NotRequired[str]
    model: NotRequired[str]


class Pong(TypedDict):
    """The answer to a ping; every push up to `seq` was sent before it."""

    type: Literal["pong"]
    id: NotRequired[str]
    seq: NotRequired[str]


class Broadcast(TypedDict):
    """An administrator speaks. Without `seq` it came from this node alone, while Redis was away."""

    type: Literal["broadcast"]
    id: str
    seq: NotRequired[str]
    message: str
    title: NotRequired[str]
    data: NotRequired[dict[str, Any]]


class Task(TypedDict):
    """News of a task, or of a batch that was taken: then `batch_id` and `count`. `at`: so many characters of the
    agent's answer came before this piece."""

    type: Literal["task"]
    id: str
    seq: NotRequired[str]
    event: Literal["queued", "started", "delta", "done", "failed", "cancelled"]
    task: NotRequired[dict[str, Any]]
    agent: NotRequired[str]
    text: NotRequired[str]
    at: NotRequired[int]
    batch_id: NotRequired[str]
    count: NotRequired[int]


class Gap(TypedDict):
    """Pushes before `seq` are lost or too old: ask afresh for what is shown."""

    type: Literal["gap"]
    seq: str | None


SERVER_MESSAGES = (Ready, Delta, Answer, Done, Error, Pong, Broadcast, Task, Gap)
ServerMessage = Ready | Delta | Answer | Done | Error | Pong | Broadcast | Task | Gap


def frame_of(message: ServerMessage) -> bytes:
    """One message as a whole text frame."""
    return text_frame(to_json(message))


def text_frame(payload: bytes) -> bytes:
    """FIN and opcode 1, unmasked as servers send (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), payload)


PING_FRAME = b"\x89\x00"
