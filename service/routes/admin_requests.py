"""What administrators may ask: bodies, queries, path and header, each with its bounds."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from starlette.datastructures import QueryParams

from service.devices import DEVICES, Device
from service.errors import Invalid
from service.http.body import SHOWN_FAULTS, validated
from service.live.messages import Push, decode, encode

Model = TypeVar("Model", bound=BaseModel)

MOST_USERS = 1000  # with short ids; a message names them all, and has MESSAGE_BYTES
BLOCK_S = 30 * 86_400
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def printable(text: str) -> str:
    """PostgreSQL stores no NUL, and a log line or a close frame should stay one line."""
    if not text.isprintable():
        raise ValueError("must be printable characters")
    return text


def without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold the character NUL")
    return text


def ascii_only(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII")
    return text


Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(printable)]
Reason = Annotated[str, Field(max_length=100), AfterValidator(printable)]


class BroadcastRequest(BaseModel):
    """A message for everybody's sockets, or for those of some users or devices, MESSAGE_BYTES as JSON in all."""

    model_config = STRICT
    message: Annotated[str, Field(min_length=1, max_length=8000), AfterValidator(without_nul)]
    title: Annotated[str | None, Field(max_length=200), AfterValidator(lambda text: text and without_nul(text))] = None
    data: dict[str, Any] | None = None
    users: Annotated[list[Id] | None, Field(min_length=1, max_length=MOST_USERS)] = None
    devices: Annotated[list[Device] | None, Field(min_length=1, max_length=len(DEVICES))] = None
    dry_run: bool = False
    expires_s: Annotated[int, Field(ge=1, le=300)] = 60

    @model_validator(mode="after")
    def fits_a_message(self) -> "BroadcastRequest":
        if self.users and self.devices:
            raise ValueError("give users or devices, not both")
        json.dumps(self.data, allow_nan=False)  # JSON has no NaN, though the parser takes it
        if decode(encode(self.push("0" * 36, 0))) is None:  # in a message `data` lies a level deeper
            raise ValueError("data is nested too deeply for a message")
        return self

    @property
    def audience(self) -> str:
        return "users" if self.users else "devices" if self.devices else "everyone"

    def payload(self) -> dict[str, Any]:
        parts = {"message": self.message, "title": self.title, "data": self.data}
        return {name: value for name, value in parts.items() if value is not None}

    def push(self, message_id: str, expires_at_ms: int) -> Push:
        users = frozenset(self.users) if self.users else None
        devices = frozenset(self.devices) if self.devices else None
        return Push(id=message_id, users=users, devices=devices, payload=self.payload(), expires_at_ms=expires_at_ms)


class DisconnectRequest(BaseModel):
    """Close a user's sockets, or one; with `block_s` keep the user out for as many seconds, 30 days at the most."""

    model_config = STRICT
    session_id: Id | None = None
    reason: Reason = ""
    dry_run: bool = False
    block_s: Annotated[int | None, Field(ge=1, le=BLOCK_S)] = None

    @model_validator(mode="after")
    def blocks_whole_users(self) -> "DisconnectRequest":
        if self.block_s and self.session_id:
            raise ValueError("block_s keeps a user out, so it cannot go with session_id")
        return self


class UserPath(BaseModel):
    user_id: Id


class PageQuery(BaseModel):
    model_config = STRICT
    cursor: Annotated[str, Field(max_length=512), AfterValidator(printable)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class NodeRequest(BaseModel):
    """Without a node it is the one that answers."""

    model_config = STRICT
    node: Id | None = None


class DrainRequest(NodeRequest):
    rate: Annotated[float, Field(ge=1, le=10_000)] = 200.0  # sockets a second


class RetryHeader(BaseModel):
    """The same key again is the same request again, whose answer may have been lost."""

    model_config = STRICT
    key: Annotated[Id, AfterValidator(ascii_only)] | None = Field(
        None, alias="Idempotency-Key", description="Of one's own making, for each request another one."
    )


def fitted(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Values of a path, a query or a header as a model; raises Invalid, naming them.

    A name that stands in a query twice is refused: one of its values would be overlooked.
    """
    if isinstance(values, QueryParams) and len(values.multi_items()) > len(values):
        names = [name for name, _ in values.multi_items()]
        faults = [{"field": name, "message": "is given more than once"} for name in values if names.count(name) > 1]
        raise Invalid("The request does not fit the schema.", errors=faults[:SHOWN_FAULTS])
    return validated(lambda: model.model_validate(dict(values)))


def digest(body: BaseModel) -> bytes:
    """SHA-256 of the body as it was understood, so that blanks and the order of fields make no other request."""
    return hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).digest()
