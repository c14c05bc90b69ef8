"""What callers do with keys: their own with the scope `keys`; anybody's, with a row in the audit trail, as an admin."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from service.admin.audit import Action, Actor, Audit
from service.errors import Forbidden, NotFound
from service.keys import issuing, store, token
from service.keys.issuing import Minted
from service.keys.store import Connection, KeyRow
from service.keys.verifier import Identity
from service.pages import Page, Place
from service.routes.key_requests import GenerateRequest, KeysQuery

Connect = Callable[[str], AbstractAsyncContextManager[Connection]]  # Database.connection: a transaction
Announce = Callable[..., Awaitable[None]]  # KeyVerifier.revoked: the hashes of the keys that changed


class KeyActions:
    """`most` is how many active keys a user may have; `announce` tells all nodes of keys that changed."""

    def __init__(self, connect: Connect, audit: Audit, announce: Announce, most: int) -> None:
        self._connect, self._audit, self._announce, self._most = connect, audit, announce, most

    async def generate(self, caller: Identity, by: Actor, asked: GenerateRequest) -> Minted:
        """Mint a key that may do at most what the caller's may: scopes the caller has, and the caller's own limits.

        Only admins set limits, and mint for others. A child may outlive its parent: who may make keys could make the
        next before the first ends. Take the scope `keys` away, by revoking, to end that.

        Raises:
            Forbidden: a scope that the caller lacks, or what only admins may ask.
            NotFound, Invalid, Conflict: as `issuing.mint`.
        """
        owner = asked.user_id or caller.user_id
        if not caller.is_admin and (owner != caller.user_id or asked.rate_limits is not None):
            raise Forbidden("Only admins mint keys for others or set rate limits.", reason="scope")
        require_all(caller, asked.scopes)
        limits = {str(policy): rate for policy, rate in (asked.rate_limits or {}).items()}
        wish = asked.wish(limits if caller.is_admin else dict(caller.limits))
        drawn = token.mint()
        details = {"user_id": owner, "name": asked.name, "scopes": list(asked.scopes), "rate_limits": limits}
        async with self._deed(caller, by, owner, "generate_key", drawn.prefix, details) as connection:
            return await issuing.mint(connection, owner, wish, self._most, drawn)

    async def page(self, caller: Identity, asked: KeysQuery) -> Page[KeyRow]:
        """The newest first; raises Forbidden for other users' keys unless the caller is an admin."""
        user_id = None if asked.all else asked.user_id or caller.user_id
        if user_id != caller.user_id and not caller.is_admin:
            raise Forbidden("Only admins list the keys of others.", reason="scope")
        after = Place.parse(asked.cursor)
        async with self._connect("select_key_page") as connection:
            return await store.select_key_page(connection, user_id, after, asked.limit)

    async def revoke(self, caller: Identity, by: Actor, prefix: str) -> None:
        """End a key on every node; again is fine. Raises NotFound for a key that is not the caller's to end."""
        key = await self._key(caller, prefix)
        async with self._deed(caller, by, key.user_id, "revoke_key", prefix, {"user_id": key.user_id}) as connection:
            key_hash = await issuing.revoke_key(connection, prefix)
        await self._announce(key_hash)

    async def rotate(self, caller: Identity, by: Actor, prefix: str, grace_s: int) -> Minted:
        """Put a new key in the place of one.

        Raises:
            Forbidden: the key has a scope that the caller lacks; the new one would have it too.
            NotFound: a key that is not the caller's; Conflict: as `issuing.rotate`.
        """
        key = await self._key(caller, prefix)
        require_all(caller, key.scopes)
        if not caller.is_admin and caller.limits and key.rate_limits != dict(caller.limits):
            raise Forbidden("This key has other rate limits than yours.", reason="limits")
        details = {"user_id": key.user_id, "grace_s": grace_s}
        async with self._deed(caller, by, key.user_id, "rotate_key", prefix, details) as connection:
            rotated = await issuing.rotate(connection, prefix, grace_s, self._most)
        await self._announce(rotated.old_hash)
        return rotated.minted

    async def _key(self, caller: Identity, prefix: str) -> KeyRow:
        """Another's key is as unknown as one that is not there."""
        async with self._connect("select_key_by_prefix") as connection:
            key = await store.select_key_by_prefix(connection, prefix)
        if key is None or (key.user_id != caller.user_id and not caller.is_admin):
            raise NotFound("There is no such key.")
        return key

    @asynccontextmanager
    async def _deed(
        self, caller: Identity, by: Actor, owner: str, action: str, target: str, details: dict[str, Any]
    ) -> AsyncIterator[Connection]:
        """The transaction of a change; with a row in the audit trail when the key is another's than the caller's."""
        if owner == caller.user_id:
            async with self._connect(action) as connection:
                yield connection
        else:
            async with self._audit.recording(Action(by, action, target, details)) as (connection, _):
                yield connection


def require_all(caller: Identity, scopes: list[Any]) -> None:
    """Nobody makes a key that may do more than their own; raises Forbidden."""
    for scope in scopes:
        caller.require(scope)
