"""Making users and keys, and taking keys back: what the command line and the API share."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from service.errors import Invalid, NotFound
from service.keys import store, token
from service.keys.store import SCOPES, Connection, KeyRow, User
from service.keys.token import Token

DEFAULT_SCOPES = ("chat", "read")


async def create_user(connection: Connection, username: str, email: str, role: str = "user") -> User:
    """Raises Conflict (by the connection) when the username or email is taken, Invalid when it is none."""
    if not re.fullmatch(r"[\w.@+-]{1,64}", username):
        raise Invalid("A username is 1 to 64 letters, digits and ._@+- only.")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise Invalid("An email looks like name@example.org.")
    user = User(f"usr_{token.random_base62(12)}", email, username, role, active=True)
    await store.insert_user(connection, user)
    return user


async def create_key(
    connection: Connection, owner: str, name: str, scopes: Sequence[str] = DEFAULT_SCOPES, days: int | None = None
) -> Token:
    """Mint a key for a user named by username or id; the token's text is known only to the caller, now.

    Raises:
        NotFound: no such user.
        Invalid: a scope that does not exist.
    """
    user_id = await store.select_user_id(connection, owner)
    if user_id is None:
        raise NotFound(f"There is no user {owner!r}.")
    if unknown := set(scopes) - set(SCOPES):
        raise Invalid(f"There is no scope {sorted(unknown)[0]!r}; there are {', '.join(SCOPES)}.")
    minted, now = token.mint(), datetime.now(UTC)
    expires_at = now + timedelta(days=days) if days else None
    row = KeyRow(minted.digest, minted.prefix, user_id, name, list(scopes), now, expires_at, None, "", True)
    await store.insert_key(connection, row)
    return minted


async def revoke_key(connection: Connection, prefix: str) -> bytes:
    """Mark a key revoked and return its hash, for the nodes to be told; raises NotFound."""
    key_hash = await store.update_revoked(connection, prefix)
    if key_hash is None:
        raise NotFound(f"There is no key {prefix!r}.")
    return key_hash
