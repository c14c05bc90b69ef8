"""What administrators do with users; each change has its row in the audit trail, in the same transaction."""

from typing import Any

from service.admin.audit import Action, Actor, Audit
from service.errors import Forbidden, Invalid, NotFound
from service.keys import issuing, user_store
from service.keys.user_store import User
from service.pages import Page, Place
from service.routes.key_actions import Announce, Connect
from service.routes.key_requests import NewUserRequest, UserChange, UsersQuery


class UserActions:
    """`announce` tells all nodes of keys that changed."""

    def __init__(self, connect: Connect, audit: Audit, announce: Announce) -> None:
        self._connect, self._audit, self._announce = connect, audit, announce

    async def create(self, by: Actor, asked: NewUserRequest) -> User:
        """Raises Conflict when the username or email is taken, Invalid when it is none."""
        issuing.check_names(asked.username, asked.email)
        action = Action(by, "create_user", asked.username, {"role": asked.role})
        async with self._audit.recording(action) as (connection, _):
            return await issuing.create_user(connection, asked.username, asked.email, asked.role)

    async def page(self, asked: UsersQuery) -> Page[User]:
        """The newest first."""
        after = Place.parse(asked.cursor)
        async with self._connect("select_user_page") as connection:
            return await user_store.select_user_page(connection, asked.query, after, asked.limit)

    async def user(self, user_id: str) -> User:
        """Raises NotFound."""
        async with self._connect("select_user") as connection:
            user = await user_store.select_user(connection, user_id)
        if user is None:
            raise NotFound("There is no such user.")
        return user

    async def change(self, by: Actor, user_id: str, asked: UserChange) -> User:
        """Change a user's role, or shut them out; every node sees it within a second, on what is open too.

        Raises:
            Invalid: administrators who would shut themselves out, so that one at least is left.
            NotFound: no such user.
            DatabaseUnavailable: it cannot be audited; nothing was done.
        """
        if user_id == by.user_id and (asked.active is False or asked.role == "user"):
            raise Invalid("You cannot deactivate or demote yourself: nobody might be left to undo it.")
        details: dict[str, Any] = asked.model_dump(exclude_none=True)
        async with self._audit.recording(Action(by, "change_user", user_id, details)) as (connection, _):
            takes = asked.active is False or asked.role == "user"
            if takes and by.user_id not in await user_store.lock_admins(connection):  # two do it to each other at once
                raise Forbidden("You are no administrator any more.", reason="scope")
            user, key_hashes = await issuing.change_user(connection, user_id, asked.role, asked.active)
        await self._announce(*key_hashes)
        return user
