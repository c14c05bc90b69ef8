"""SQL of users. Every function takes the connection first; parameters are bound."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from service.keys.store import Connection
from service.pages import Page, Place

USER_COLUMNS = "id, email, username, role, active, created_at"
INSERT_USER = f"INSERT INTO users (id, email, username, role) VALUES (%s, %s, %s, %s) RETURNING {USER_COLUMNS}"  # noqa: S608 - our own columns
SELECT_USERS = f"SELECT {USER_COLUMNS} FROM users ORDER BY created_at, id LIMIT %s"  # noqa: S608 - our own columns
SELECT_USER = f"SELECT {USER_COLUMNS} FROM users WHERE id = %s"  # noqa: S608 - our own columns
SELECT_USER_ID = "SELECT id FROM users WHERE username = %s OR id = %s ORDER BY username = %s DESC LIMIT 1"
# One who mints a key holds the user, so that two at once cannot pass the bound together.
LOCK_USER = " FOR NO KEY UPDATE"
SELECT_USER_PAGE = f"""
SELECT {USER_COLUMNS} FROM users
WHERE (%(like)s::text IS NULL OR lower(username) LIKE lower(%(like)s) OR lower(email) LIKE lower(%(like)s))
  AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s))
ORDER BY created_at DESC, id DESC LIMIT %(rows)s"""  # noqa: S608 - our own columns
LOCK_ADMINS = "SELECT id FROM users WHERE role = 'admin' AND active ORDER BY id FOR NO KEY UPDATE"
UPDATE_USER = f"""
UPDATE users SET role = coalesce(%s, role), active = coalesce(%s, active) WHERE id = %s
RETURNING {USER_COLUMNS}"""  # noqa: S608 - our own columns


@dataclass(frozen=True)
class User:
    id: str
    email: str
    username: str
    role: str
    active: bool
    created_at: datetime


async def insert_user(connection: Connection, user_id: str, email: str, username: str, role: str) -> User:
    """Raises Conflict (by `Database.connection`) when the email or username is taken."""
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        user = await (await cursor.execute(INSERT_USER.encode(), (user_id, email, username, role))).fetchone()
    assert user is not None  # noqa: S101 - an insert returns its row; mypy cannot know
    return user


async def select_users(connection: Connection, limit: int = 1000) -> list[User]:
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        return await (await cursor.execute(SELECT_USERS.encode(), (limit,))).fetchall()


async def select_user_page(connection: Connection, query: str, after: Place | None, limit: int) -> Page[User]:
    """The newest first; `query` is the beginning of a username or email in any case, empty for all."""
    place = {"at": after and after.at, "id": after and after.name}
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(SELECT_USER_PAGE.encode(), place | {"like": beginning(query), "rows": limit + 1})
        return Page.of(await cursor.fetchall(), limit, lambda user: Place(user.created_at, user.id))


def beginning(query: str) -> str | None:
    """A pattern for LIKE in which %, _ and the backslash mean themselves."""
    for special in "\\%_":
        query = query.replace(special, f"\\{special}")
    return f"{query}%" if query else None


async def select_user(connection: Connection, user_id: str, lock: bool = False) -> User | None:
    """With `lock` nobody else changes it, or mints a key for it, until the transaction ends."""
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        return await (await cursor.execute((SELECT_USER + LOCK_USER * lock).encode(), (user_id,))).fetchone()


async def select_user_id(connection: Connection, name: str) -> str | None:
    """The id of the user with this username, else with this id."""
    row = await (await connection.execute(SELECT_USER_ID, (name, name, name))).fetchone()
    return row[0] if row else None


async def lock_admins(connection: Connection) -> set[str]:
    """Ids of those who may administrate; nobody else changes them until the transaction ends."""
    return {row[0] for row in await (await connection.execute(LOCK_ADMINS)).fetchall()}


async def update_user(connection: Connection, user_id: str, role: str | None, active: bool | None) -> User | None:
    """Change what is not None; None when there is no such user."""
    async with connection.cursor(row_factory=class_row(User)) as cursor:
        return await (await cursor.execute(UPDATE_USER.encode(), (role, active, user_id))).fetchone()
