"""`/api/v1/keys`: making, listing, rotating and ending API keys. All need the scope keys."""

from pydantic_core import to_json
from starlette.responses import Response

from service.errors import Conflict, NotFound
from service.http.contract import answers
from service.http.operation import Call
from service.keys.issuing import Minted
from service.keys.store import KeyRow
from service.routes.admin import actor, answer
from service.routes.admin_requests import fitted
from service.routes.key_actions import KeyActions
from service.routes.key_answers import KeyItem, KeysPage, NewKeyItem
from service.routes.key_requests import GenerateRequest, KeysQuery, RotateRequest, key_prefix

UNCACHED = ("Cache-Control",)
EXAMPLES = {
    "for a year": {"name": "laptop", "scopes": ["chat", "read"], "expires_in_days": 365},
    "to read only": {"name": "reports", "scopes": ["read"]},
}


class KeyRoutes:
    def __init__(self, actions: KeyActions) -> None:
        self._actions = actions

    @answers(NewKeyItem, status=201, tells=UNCACHED, examples=EXAMPLES, errors=(NotFound, Conflict))
    async def generate(self, call: Call[GenerateRequest]) -> Response:
        """Make a key; it is shown this once."""
        return shown_once(await self._actions.generate(call.identity, actor(call), call.body))

    @answers(KeysPage, query=KeysQuery)
    async def list_keys(self, call: Call[None]) -> Response:
        """List one's keys, the newest first, page by page."""
        page = await self._actions.page(call.identity, fitted(KeysQuery, call.request.query_params))
        return answer(KeysPage(keys=[described(row) for row in page.rows], next_cursor=page.next_cursor))

    @answers(None, status=204)
    async def revoke(self, call: Call[None]) -> Response:
        """End a key, everywhere and at once."""
        await self._actions.revoke(call.identity, actor(call), key_prefix(call))
        return Response(status_code=204)

    @answers(NewKeyItem, status=201, tells=UNCACHED, errors=(Conflict,))
    async def rotate(self, call: Call[RotateRequest]) -> Response:
        """Put a new key in the place of one, which ends after a grace."""
        prefix, grace_s = key_prefix(call), call.body.grace_s
        return shown_once(await self._actions.rotate(call.identity, actor(call), prefix, grace_s))


def shown_once(minted: Minted) -> Response:
    content: NewKeyItem = {"key": minted.token.text, **described(minted.row)}
    return Response(to_json(content), 201, {"cache-control": "no-store"}, media_type="application/json")


def described(row: KeyRow) -> KeyItem:
    """A key without its secret and its hash."""
    return {
        "prefix": row.prefix,
        "name": row.name,
        "user_id": row.user_id,
        "scopes": row.scopes,
        "rate_limits": row.rate_limits,
        "state": row.state,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "replaced_by": row.replaced_by,
    }
