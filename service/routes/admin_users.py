"""`/api/admin/users`: who there is, in which role, and who may come in. All need the scope admin."""

from starlette.responses import Response

from service.errors import Conflict
from service.http.contract import answers
from service.http.operation import Call
from service.keys.user_store import User
from service.routes.admin import actor, answer, user_id
from service.routes.admin_requests import UserPath, fitted
from service.routes.key_answers import UserItem, UsersPage
from service.routes.key_requests import NewUserRequest, UserChange, UsersQuery
from service.routes.user_actions import UserActions

EXAMPLES = {"a user": {"username": "ana", "email": "ana@example.org", "role": "user"}}


class UserRoutes:
    def __init__(self, actions: UserActions) -> None:
        self._actions = actions

    @answers(UserItem, status=201, examples=EXAMPLES, errors=(Conflict,))
    async def create(self, call: Call[NewUserRequest]) -> Response:
        """Make a user."""
        return answer(described(await self._actions.create(actor(call), call.body)), 201)

    @answers(UsersPage, query=UsersQuery)
    async def list_users(self, call: Call[None]) -> Response:
        """List the users, the newest first, page by page."""
        page = await self._actions.page(fitted(UsersQuery, call.request.query_params))
        return answer(UsersPage(users=[described(user) for user in page.rows], next_cursor=page.next_cursor))

    @answers(UserItem, segments=UserPath)
    async def show(self, call: Call[None]) -> Response:
        """Show a user."""
        return answer(described(await self._actions.user(user_id(call))))

    @answers(UserItem, segments=UserPath)
    async def change(self, call: Call[UserChange]) -> Response:
        """Change a user's role, or whether they may come in."""
        return answer(described(await self._actions.change(actor(call), user_id(call), call.body)))


def described(user: User) -> UserItem:
    return {
        "user_id": user.id,
        "username": user.username,
        "email": user.email,
        "role": user.role,
        "active": user.active,
        "created_at": user.created_at,
    }
