"""Two tenants on one node, and the kinds of things that one of them has and the other asks for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from service.agents.session_records import Bounds, Exchange, Place, Turn
from service.agents.sessions_redis import RedisSessions
from service.db.pool import one_connection
from service.keys import issuing
from service.settings import load
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics
from tests.nodes import RunningNode

# In every text that ana writes: it may be in nothing that ben hears, nor in what a model is asked for him.
WORD = "ana-wrote-this"
BOUNDS = Bounds(ttl_s=86_400, messages=100, bytes=262_144, sessions_per_user=1000)
ORDINARY = ("chat", "read", "keys")


@dataclass(frozen=True)
class Tenant:
    user_id: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Tenants:
    """Two ordinary users: ana has the things, ben asks for them. `node.http` by itself is an administrator's."""

    node: RunningNode
    ana: Tenant
    ben: Tenant

    async def as_ana(self, path: str) -> Any:
        return (await self.node.http.get(path, headers=self.ana.headers)).json()

    async def sql(self, query: str, *values: Any) -> list[Any]:
        async with one_connection(self.node.dsn) as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()


@dataclass(frozen=True)
class Thing:
    """`make` gives ana one and returns its name; `seen` is how it looks to her; `nobodys` is a name that nobody has."""

    nobodys: str
    make: Callable[[Tenants], Awaitable[str]]
    seen: Callable[[Tenants], Awaitable[Any]]


async def two_tenants(node: RunningNode) -> Tenants:
    return Tenants(node, await tenant(node, "ana"), await tenant(node, "ben"))


async def tenant(node: RunningNode, name: str) -> Tenant:
    async with one_connection(node.dsn) as connection:
        made = await issuing.create_user(connection, name, f"{name}@example.org")
    return Tenant(made.id, {"x-api-key": await node.new_key(*ORDINARY, user=name)})


async def hold(node: RunningNode, user_id: str, session_id: str, task: str, at: float = 1_700_000_000.0) -> None:
    """Keep an exchange, as another node would that had it."""
    redis = RedisState(load(redis_url=node.settings.redis_url.get_secret_value(), redis_request_timeout=5), Metrics())
    turns = [Turn("user", task, at=at), Turn("assistant", "42", "reasoning", at)]
    await RedisSessions(redis, BOUNDS).append(Place.of(user_id, session_id), session_id, [Exchange.of(turns)])
    await redis.close()


async def make_nothing(tenants: Tenants) -> str:
    return ""


async def see_nothing(tenants: Tenants) -> Any:
    return None


async def make_conversation(tenants: Tenants) -> str:
    await hold(tenants.node, tenants.ana.user_id, "phone", WORD)
    return "phone"


async def see_conversation(tenants: Tenants) -> Any:
    found = [await tenants.as_ana("/api/v1/sessions"), await tenants.as_ana("/api/v1/sessions/phone")]
    assert found[1]["turns"][0]["content"] == WORD
    return found


async def make_heartbeat(tenants: Tenants) -> str:
    body = {"session_id": "phone", "client_id": WORD}
    await tenants.node.http.post("/api/v1/presence/heartbeat", json=body, headers=tenants.ana.headers)
    return "phone"


async def see_presence(tenants: Tenants) -> Any:
    """How often ana is online."""
    online = (await tenants.node.http.get("/api/admin/users/online")).json()["users"]
    return [user for user in online if user["user_id"] == tenants.ana.user_id]


async def make_key(tenants: Tenants) -> str:
    async with one_connection(tenants.node.dsn) as connection:
        return (await issuing.create_key(connection, "ana", WORD, ORDINARY)).prefix


async def see_keys(tenants: Tenants) -> Any:
    query = "SELECT prefix, name, scopes, expires_at, revoked_at, rate_limits::text FROM api_keys WHERE user_id = %s"
    return sorted(await tenants.sql(query, tenants.ana.user_id))


async def make_task(tenants: Tenants) -> str:
    body = {"tasks": [{"agent": "reasoning", "task": WORD, "model": "good"}]}
    made = await tenants.node.http.post("/api/v1/tasks", json=body, headers=tenants.ana.headers)
    return str(made.json()["ids"][0])


async def see_tasks(tenants: Tenants) -> Any:
    found = await tenants.as_ana("/api/v1/tasks")
    (task,) = [await tenants.as_ana(f"/api/v1/tasks/{task['id']}") for task in found["tasks"]]
    assert (task["request"]["task"], task["status"]) == (WORD, "queued")
    return [found, task]


async def make_usage(tenants: Tenants) -> str:
    chat = {"agent": "reasoning", "task": "hello", "model": "good"}
    await tenants.node.http.post("/api/v1/chat", json=chat, headers=tenants.ana.headers)
    return tenants.ana.user_id


async def see_usage(tenants: Tenants) -> Any:
    return await tenants.sql("SELECT * FROM api_usage WHERE user_id = %s", tenants.ana.user_id)


async def make_online_user(tenants: Tenants) -> str:
    await make_heartbeat(tenants)
    return tenants.ana.user_id


async def see_fleet(tenants: Tenants) -> Any:
    """What administrators may change: ana is online and not blocked, the node ready, nothing audited."""
    ready = (await tenants.node.private.get("/readyz")).status_code
    return [
        await see_presence(tenants),
        ready,
        await tenants.sql("SELECT * FROM blocks"),
        await tenants.sql("SELECT * FROM admin_audit"),
    ]


NOTHING = Thing("", make_nothing, see_nothing)
CONVERSATION = Thing("phone", make_conversation, see_conversation)
HEARTBEAT = Thing("phone", make_heartbeat, see_presence)
KEY = Thing("AAAAAAAA", make_key, see_keys)
TASK = Thing("00000000-0000-4000-8000-000000000000", make_task, see_tasks)
USAGE = Thing("usr_000000000000", make_usage, see_usage)
FLEET = Thing("usr_000000000000", make_online_user, see_fleet)
