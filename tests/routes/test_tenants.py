"""Whatever one tenant has, another cannot tell it from what nobody has; for every operation of the route table."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from service.app import operations
from service.http.operation import Operation
from tests.bodies import fields_of
from tests.nodes import RunningNode
from tests.routes.tenants import (
    CONVERSATION,
    FLEET,
    HEARTBEAT,
    KEY,
    NOTHING,
    TASK,
    USAGE,
    WORD,
    Tenants,
    Thing,
    two_tenants,
)
from tests.test_house import Anything
from tests.upstream import Upstream

PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
NAME = "<name>"  # where the name of ana's thing goes


@dataclass(frozen=True)
class Case:
    """What ana has, and how ben asks for it by name: in the path's parameter, or where `body` or `query` say NAME.

    `status` is his answer, the same whether ana has one or nobody. `fields` are all the fields of the body, so that a
    new one is thought of here. `varies` where no two answers are alike.
    """

    status: int
    thing: Thing = NOTHING
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    fields: str = ""
    varies: bool = False
    segments: Mapping[str, str] = field(default_factory=dict)  # parameters of the path that name no thing of hers


MATRIX = {
    "POST /api/v1/chat": Case(
        200,
        CONVERSATION,
        {"agent": "reasoning", "task": "hello", "model": "good", "session_id": NAME},
        fields="agent agents task model parameters session_id stream",
    ),
    "POST /api/v1/chat/batch": Case(  # its tasks have no session_id, so they name nothing
        200,
        body={"requests": [{"agent": "reasoning", "task": "hello", "model": "no-usage"}]},
        fields="requests",
        varies=True,
    ),
    "POST /v1/chat/completions": Case(
        200,
        body={"model": "no-usage", "messages": [{"role": "user", "content": "hello"}]},
        fields="model messages stream stream_options temperature top_p max_tokens max_completion_tokens stop seed "
        "presence_penalty frequency_penalty reasoning_effort verbosity",
        varies=True,
    ),
    "GET /v1/models": Case(200),
    "GET /v1/models/{model:path}": Case(200, segments={"model": "good"}),
    "GET /api/v1/usage": Case(404, USAGE, query={"user": NAME}),
    "POST /api/v1/keys/generate": Case(
        403, USAGE, {"name": "x", "user_id": NAME}, fields="name scopes expires_in_days expires_at user_id rate_limits"
    ),
    "GET /api/v1/keys": Case(403, USAGE, query={"user_id": NAME}),
    "DELETE /api/v1/keys/{key_prefix}": Case(404, KEY),
    "POST /api/v1/keys/{key_prefix}/rotate": Case(404, KEY, {}, fields="grace_s"),
    "GET /api/v1/agents": Case(200),  # the same for everybody
    "GET /api/v1/models": Case(200),
    "POST /api/v1/ws-tickets": Case(201, varies=True),  # whose it is lies in the key
    "POST /api/v1/presence/heartbeat": Case(
        200, HEARTBEAT, {"session_id": NAME}, fields="session_id client_id device_type"
    ),
    "DELETE /api/v1/presence/heartbeat/{session_id:path}": Case(204, HEARTBEAT),  # one that is gone is no fault
    "GET /api/v1/sessions": Case(200, CONVERSATION),
    "GET /api/v1/sessions/{session_id:path}": Case(404, CONVERSATION),
    "DELETE /api/v1/sessions/{session_id:path}": Case(404, CONVERSATION),
    "POST /api/v1/tasks": Case(  # its tasks name nothing of anybody's
        202,
        TASK,
        {"agent": "reasoning", "task": "hello", "model": "good"},
        fields="agent agents task model parameters stream priority not_before deadline callback_url tasks",
        varies=True,
    ),
    "GET /api/v1/tasks": Case(200, TASK, query={"batch": NAME}),
    "GET /api/v1/tasks/{task_id}": Case(404, TASK),
    "DELETE /api/v1/tasks/{task_id}": Case(404, TASK),
    "GET /api/v1/tasks/{task_id}/events": Case(404, TASK),
    "GET /api/admin/stats/online-users": Case(403, FLEET),
    "GET /api/admin/stats/system": Case(403, FLEET),
    "GET /api/admin/stats/websocket": Case(403, FLEET),
    "GET /api/admin/stats/dashboard": Case(403, FLEET),
    "GET /api/admin/stats/tasks": Case(403, FLEET),
    "GET /api/admin/tasks": Case(403, TASK),
    "POST /api/admin/tasks/{task_id}/retry": Case(403, TASK),
    "POST /api/admin/broadcast": Case(
        403, FLEET, {"message": "x", "users": [NAME]}, fields="message title data users devices dry_run expires_s"
    ),
    "GET /api/admin/users/online": Case(403, FLEET),
    "POST /api/admin/users/{user_id:path}/disconnect": Case(
        403, FLEET, {"block_s": 60}, fields="session_id reason dry_run block_s"
    ),
    "DELETE /api/admin/users/{user_id:path}/block": Case(403, FLEET),
    "POST /api/admin/blocks": Case(
        403, FLEET, {"kind": "user", "subject": NAME, "for_s": 60}, fields="kind subject for_s reason"
    ),
    "GET /api/admin/blocks": Case(403, FLEET),
    "DELETE /api/admin/blocks/{kind}/{subject:path}": Case(403, FLEET, segments={"kind": "user"}),
    "POST /api/admin/users": Case(
        403, FLEET, {"username": "eve", "email": "eve@example.org"}, fields="username email role"
    ),
    "GET /api/admin/users": Case(403, FLEET),
    "GET /api/admin/users/{user_id:path}": Case(403, FLEET),
    "PATCH /api/admin/users/{user_id:path}": Case(403, FLEET, {"active": False}, fields="role active"),
    "DELETE /api/admin/cache": Case(403, FLEET),
    "DELETE /api/admin/cache/{agent_id}": Case(403, FLEET, segments={"agent_id": "reasoning"}),
    "POST /api/admin/drain": Case(403, FLEET, query={"rate": "1"}),
    "DELETE /api/admin/drain": Case(403, FLEET),
}
TABLE = {f"{operation.method} {operation.path}": operation for operation in operations(Anything())}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLE)
async def test_another_tenants_thing_is_as_if_nobody_had_it(
    name: str, node: RunningNode, model_server: Upstream
) -> None:
    assert name in MATRIX, f"{name}: say in MATRIX how ana's object is made and how ben asks for it"
    case, operation, tenants = MATRIX[name], TABLE[name], await two_tenants(node)
    assert fields_of(operation.body) == set(case.fields.split()), (
        f"{name}: its body has other fields than MATRIX says; does one of them name an object?"
    )
    before = await ask(tenants, operation, case, case.thing.nobodys)
    its_name = await case.thing.make(tenants)
    seen = await case.thing.seen(tenants)
    assert seen or case.thing is NOTHING
    model_server.bodies.clear()
    after = await ask(tenants, operation, case, its_name)
    assert (before.status_code, after.status_code) == (case.status, case.status), after.text
    assert case.varies or alike(before, case.thing.nobodys) == alike(after, its_name)
    assert WORD not in after.text + json.dumps(model_server.bodies)
    assert await case.thing.seen(tenants) == seen


def test_the_matrix_has_no_operation_that_is_gone() -> None:
    assert [name for name in MATRIX if name not in TABLE] == []


async def ask(tenants: Tenants, operation: Operation, case: Case, its_name: str) -> httpx2.Response:
    path = PARAMETER.sub(lambda found: case.segments.get(found[1], its_name), operation.path)
    body = case.body and json.loads(json.dumps(case.body).replace(NAME, its_name))
    query = {key: value.replace(NAME, its_name) for key, value in case.query.items()}
    http, headers = tenants.node.http, tenants.ben.headers
    return await http.request(operation.method, path, json=body, params=query, headers=headers)


def alike(response: httpx2.Response, its_name: str) -> Any:
    """The answer without what differs from request to request, and without the name that was asked for."""
    if not response.content:
        return response.content
    found = json.loads(response.text.replace(its_name, NAME) if its_name else response.text)
    return {key: value for key, value in found.items() if key not in ("id", "request_id")}
