"""People with keys, on nodes whose limits are out of the way."""

from typing import Any

from service.db.pool import one_connection
from service.keys import issuing
from service.settings import Settings
from tests.nodes import RunningNode, node_settings
from tests.upstream import Upstream

UNLIMITED = {f"rate_limit_{policy}": "1000000/minute" for policy in ("chat", "api", "keys", "admin")}


def roomy(database_url: str, redis_url: str, model_server: Upstream, **changes: Any) -> Settings:
    return node_settings(database_url, redis_url, model_server, **UNLIMITED, **changes)


async def person(node: RunningNode, name: str, *scopes: str, role: str = "user") -> tuple[str, dict[str, str]]:
    """A new user's id, and the header with a key of theirs (chat, read and keys unless told)."""
    async with one_connection(node.dsn) as connection:
        user = await issuing.create_user(connection, name, f"{name}@example.org", role)
    return user.id, {"x-api-key": await node.new_key(*(scopes or ("chat", "read", "keys")), user=name)}


async def generate(node: RunningNode, headers: dict[str, str] | None = None, **body: Any) -> Any:
    """A new key as the API answers it."""
    response = await node.http.post("/api/v1/keys/generate", json={"name": "test", **body}, headers=headers)
    assert response.status_code == 201, response.text
    return response.json()
