"""Making, rotating and taking back keys, and changing users: what the command line and the API share.

All of it is SQL in the caller's transaction. Once that is committed the caller announces the hashes of the keys it
concerns, so that every node asks PostgreSQL anew.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.errors import Conflict, Invalid, NotFound
from service.keys import store, token, user_store
from service.keys.store import SCOPES, Connection, KeyRow, NewKey
from service.keys.token import Token
from service.keys.user_store import User

DEFAULT_SCOPES = ("chat", "read")
# What limits may be set for a key by itself, as in the settings RATE_LIMIT_…
POLICIES = ("chat", "api", "keys", "admin")
KEYS_PER_USER = 100
GRACE_S = 3600
MOST_GRACE_S = 7 * 86_400


@dataclass(frozen=True)
class Wish:
    """The key that somebody wants. It ends at `expires_at`, or after `days`, or never."""

    name: str
    scopes: Sequence[str] = DEFAULT_SCOPES
    expires_at: datetime | None = None
    days: int | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Minted:
    """A new key: its token, known only to the caller, now; and its row."""

    token: Token
    row: KeyRow


@dataclass(frozen=True)
class Rotated:
    """The new key, and the hash of the one it replaces."""

    minted: Minted
    old_hash: bytes


async def create_user(connection: Connection, username: str, email: str, role: str = "user") -> User:
    """Raises Conflict (by the connection) when the username or email is taken, Invalid when it is none."""
    check_names(username, email)
    return await user_store.insert_user(connection, f"usr_{token.random_base62(12)}", email, username, role)


def check_names(username: str, email: str) -> None:
    """Raises Invalid; before anything is stored, the audit trail's row too, which cannot hold a NUL either."""
    if not re.fullmatch(r"[\w.@+-]{1,64}", username):
        raise Invalid("A username is 1 to 64 letters, digits and ._@+- only.")
    if not re.fullmatch(r"[^@\s\0]+@[^@\s\0]+", email):
        raise Invalid("An email looks like name@example.org.")


async def change_user(
    connection: Connection, user_id: str, role: str | None = None, active: bool | None = None
) -> tuple[User, list[bytes]]:
    """Change a user's role, or whether they may come in at all; and the hashes of their keys, to be announced.

    Keys are left as they are: those of an inactive user are refused, and the scope `admin` of a key counts only while
    its user has that role. So what is taken back here comes back with the role.

    Raises:
        NotFound: no such user.
    """
    user = await user_store.update_user(connection, user_id, role, active)
    if user is None:
        raise NotFound(f"There is no user {user_id!r}.")
    return user, await store.select_live_hashes(connection, user_id)


async def user_id_of(connection: Connection, name: str) -> str:
    """The id of the user with this username or id; raises NotFound."""
    user_id = await user_store.select_user_id(connection, name)
    if user_id is None:
        raise NotFound(f"There is no user {name!r}.")
    return user_id


async def create_key(
    connection: Connection, owner: str, name: str, scopes: Sequence[str] = DEFAULT_SCOPES, days: int | None = None
) -> Token:
    """As `mint`, for a user named by username or id."""
    user_id = await user_id_of(connection, owner)
    return (await mint(connection, user_id, Wish(name, scopes, days=days))).token


async def mint(
    connection: Connection, user_id: str, wish: Wish, most: int = KEYS_PER_USER, drawn: Token | None = None
) -> Minted:
    """Make a key for a user; `most` is how many active ones a user may have.

    `drawn` is the token to use, for who had to know its prefix before (an audit trail); else a new one is drawn.

    Raises:
        NotFound: no such user.
        Invalid: a scope that does not exist, or `admin` for a user without that role; an end that is past.
        Conflict: the user has `most` keys.
    """
    if unknown := set(wish.scopes) - set(SCOPES):
        raise Invalid(f"There is no scope {sorted(unknown)[0]!r}; there are {', '.join(SCOPES)}.")
    user = await user_store.select_user(connection, user_id, lock=True)
    if user is None:
        raise NotFound(f"There is no user {user_id!r}.")
    if "admin" in wish.scopes and user.role != "admin":
        raise Invalid("The scope admin is for keys of users with the role admin.")
    active, _ = await store.select_live_counts(connection, user_id)
    if active >= most:
        raise Conflict(f"A user may have {most} keys; revoke one first.", reason="keys_per_user")
    return await insert(connection, user_id, wish, drawn or token.mint())


async def insert(connection: Connection, user_id: str, wish: Wish, drawn: Token) -> Minted:
    """Raises Invalid for an end that is past by PostgreSQL's clock."""
    about = (user_id, wish.name, list(dict.fromkeys(wish.scopes)), wish.expires_at, wish.days, dict(wish.rate_limits))
    await store.insert_key(connection, NewKey(drawn.digest, drawn.prefix, *about))
    row = await store.select_key(connection, drawn.digest)
    assert row is not None  # noqa: S101 - it was inserted; mypy cannot know
    if row.state == "expired":
        raise Invalid(errors=[{"field": "expires_at", "message": "must be in the future"}])
    return Minted(drawn, row)


async def rotate(connection: Connection, prefix: str, grace_s: int = GRACE_S, most: int = KEYS_PER_USER) -> Rotated:
    """Put a new key in the place of one: the same name, scopes, limits and end. The old one ends after `grace_s`.

    `most` bounds a user's keys in their grace, too: else rotation after rotation would heap up keys that are good.

    Raises:
        NotFound: no such key.
        Conflict: it was revoked, has expired, or was rotated before (`reason`: revoked, expired, rotating); or too many
            of the user's keys are in their grace, which a grace of 0 s does not mind.
    """
    found = await store.select_key_by_prefix(connection, prefix)
    if found is None:
        raise NotFound(f"There is no key {prefix!r}.")
    await user_store.select_user(connection, found.user_id, lock=True)  # before the key, as `mint` does
    old = await store.select_key_by_prefix(connection, prefix, lock=True)
    assert old is not None  # noqa: S101 - keys are never deleted; mypy cannot know
    if old.state != "active":
        raise Conflict("Only an active key can be rotated, and only once.", reason=old.state)
    _, in_grace = await store.select_live_counts(connection, old.user_id)
    if grace_s and in_grace >= most:
        raise Conflict(f"{most} rotated keys are still in their grace; use grace_s 0.", reason="keys_per_user")
    wish = Wish(old.name, old.scopes, old.expires_at, rate_limits=old.rate_limits)
    minted = await insert(connection, old.user_id, wish, token.mint())
    await store.update_replaced(connection, prefix, minted.row.prefix, grace_s)
    return Rotated(minted, old.key_hash)


async def revoke_key(connection: Connection, prefix: str) -> bytes:
    """Mark a key revoked and return its hash, for the nodes to be told; raises NotFound."""
    key_hash = await store.update_revoked(connection, prefix)
    if key_hash is None:
        raise NotFound(f"There is no key {prefix!r}.")
    return key_hash
