"""What is answered about keys and users."""

from datetime import datetime

from typing_extensions import TypedDict

from service.keys.store import State


class KeyItem(TypedDict):
    """A key without its secret. `rotating`: another has replaced it, and it is good for a grace yet."""

    prefix: str
    name: str
    user_id: str
    scopes: list[str]
    rate_limits: dict[str, str]
    state: State
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None


class NewKeyItem(KeyItem):
    """`key` is the secret itself: it is shown this once."""

    key: str


class KeysPage(TypedDict):
    """Go on with `next_cursor` until it is null."""

    keys: list[KeyItem]
    next_cursor: str | None


class UserItem(TypedDict):
    user_id: str
    username: str
    email: str
    role: str
    active: bool
    created_at: datetime


class UsersPage(TypedDict):
    """Go on with `next_cursor` until it is null."""

    users: list[UserItem]
    next_cursor: str | None
