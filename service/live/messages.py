"""What travels on the bus between nodes: every kind of message, schema-checked on the way in and out.

A message has an id of its own: a node acts on an id once, so publishing a message again is harmless.
"""

import time
import uuid
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from service.devices import Device

DRAIN_WITHIN_S = 60.0
PUSH, PEEK_BYTES = b'"kind":"push"', 128  # behind an id of at most 64 characters
MESSAGE_BYTES = 16_384  # of one message as JSON; ten thousand of them are kept


class BusMessage(BaseModel):
    """What every kind has. Unknown fields are refused: a stream that others can write to is not believed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Annotated[str, Field(min_length=1, max_length=64)] = Field(default_factory=lambda: uuid.uuid4().hex)


class Push(BusMessage):
    """A message for sockets: `payload` is sent to each under `type`. No audience means everybody."""

    kind: Literal["push"] = "push"
    type: Literal["broadcast", "task"] = "broadcast"
    users: frozenset[str] | None = None
    devices: frozenset[Device] | None = None
    payload: dict[str, Any]
    expires_at_ms: Annotated[int, Field(ge=0)]  # Unix time; a node that reads it later delivers nothing

    def expired(self) -> bool:
        return time.time() * 1000 >= self.expires_at_ms


class Disconnect(BusMessage):
    """Close a user's sockets, or one of them, with code 4002."""

    kind: Literal["disconnect"] = "disconnect"
    user_id: str
    session_id: str | None = None
    reason: Annotated[str, Field(max_length=100)] = ""


class Blocked(BusMessage):
    """A key (by its prefix), a user or an address is kept out until a moment (Unix seconds); 0 lifts the block.

    Older nodes knew users only, by `user_id`.
    """

    kind: Literal["blocked"] = "blocked"
    blocked: Literal["key", "user", "address"] = "user"
    subject: Annotated[str, Field(min_length=1, max_length=128, validation_alias=AliasChoices("subject", "user_id"))]
    until_s: Annotated[float, Field(ge=0)]
    reason: Annotated[str, Field(max_length=100)] = ""

    @model_validator(mode="after")
    def names_an_address(self) -> "Blocked":
        if self.blocked == "address":
            ip_network(self.subject)
        return self


class Drain(BusMessage):
    """Ask one node, by its name, to let its sockets go at `rate` a second; 0 ends the draining.

    It is not done later than `expires_at_ms`: through an outage it would drain the node's successor.
    """

    kind: Literal["drain"] = "drain"
    node: str
    rate: Annotated[float, Field(ge=0)]
    expires_at_ms: Annotated[int, Field(ge=0)] = Field(
        default_factory=lambda: int((time.time() + DRAIN_WITHIN_S) * 1000)
    )

    def expired(self) -> bool:
        return time.time() * 1000 >= self.expires_at_ms


class Flush(BusMessage):
    """What was cached of an agent (None: everything) at or before a moment (Unix milliseconds) is served no more."""

    kind: Literal["flush"] = "flush"
    group: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    before_ms: Annotated[int, Field(ge=0)]


AnyMessage = Annotated[Push | Disconnect | Blocked | Drain | Flush, Field(discriminator="kind")]
ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def encode(message: BusMessage) -> bytes:
    """Raises ValueError for a message larger than MESSAGE_BYTES."""
    data = message.model_dump_json(exclude_none=True).encode()
    if len(data) > MESSAGE_BYTES:
        raise ValueError(f"a message may have at most {MESSAGE_BYTES} bytes as JSON, with the users it names")
    return data


def is_push(data: bytes) -> bool:
    """Whether these bytes, which `encode` made, are a push: for who has no use for one and need not decode it."""
    return PUSH in data[:PEEK_BYTES]


def decode(data: bytes) -> AnyMessage | None:
    """None for what is no message of ours."""
    if len(data) > MESSAGE_BYTES:
        return None
    try:
        return ADAPTER.validate_json(data)
    except ValidationError:
        return None
