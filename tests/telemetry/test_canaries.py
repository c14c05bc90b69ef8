"""Secrets that callers send are nowhere but where they belong: a marked word in every input, then a look everywhere.

Not marked is X-Request-Id: it is there to be found in logs, traces and the usage table.
"""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from service.app import operations
from service.http.operation import Operation
from tests.bodies import fields_of
from tests.live.clients import refusal, socket
from tests.nodes import RunningNode
from tests.routes.tenants import hold
from tests.telemetry.sinks import Sink
from tests.test_house import Anything
from tests.upstream import Upstream
from tests.waiting import eventually

LAST = "the-last-request"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def mark(place: str) -> str:
    """Joined here, because the source text around a frame is sent to Sentry, and may be."""
    return "-".join(["canary", place])


# What every request carries beside its body; a path's parameter is `path`.
HEADERS = {
    "user-agent": mark("agent"),
    "idempotency-key": mark("retry"),
    "x-unknown": mark("header"),
    "cookie": mark("cookie"),
    "referer": f"http://example.org/{mark('referer')}",
    "origin": f"http://{mark('origin')}.example.org",
    "x-forwarded-for": mark("forwarded"),
    "traceparent": mark("parent"),
    "tracestate": f"x={mark('state')}",
    "baggage": f"x={mark('baggage')}",
}
QUERY = {"node": mark("node"), "cursor": mark("cursor"), mark("parameter"): mark("query")}

# Of each operation with a body: bodies that between them have every field, each text marked.
BODIES: dict[str, list[dict[str, Any]]] = {
    "POST /api/v1/chat": [
        {"agent": "reasoning", "task": mark("task"), "model": "good", "parameters": {"stop": [mark("stop")]}},
        {"agents": ["reasoning", "research"], "task": mark("task"), "model": "refuses", "stream": True},
        {"agent": mark("agent-id"), "task": mark("task"), "model": mark("model")},
        {"agent": "reasoning", "task": mark("task"), "model": "good", "session_id": mark("session")},
    ],
    "POST /api/v1/chat/batch": [{"requests": [{"agent": "reasoning", "task": mark("task"), "model": "good"}]}],
    "POST /api/v1/tasks": [
        {"tasks": [{"agent": "reasoning", "task": mark("task"), "parameters": {"stop": [mark("stop")]}}]},
        {
            "agent": mark("agent-id"),
            "agents": [mark("agent-id")],
            "task": mark("task"),
            "model": mark("model"),
            "parameters": {"stop": [mark("stop")]},
            "stream": mark("stream"),
            "priority": mark("priority"),
            "not_before": mark("moment"),
            "deadline": mark("moment"),
            "callback_url": f"https://{mark('callback')}.example.org",
        },
    ],
    "POST /v1/chat/completions": [
        {
            "model": "agent:reasoning",
            "messages": [
                {"role": "system", "content": mark("system")},
                {"role": "user", "content": mark("task"), "name": mark("name")},
            ],
            "stop": mark("stop"),
            "temperature": 0,
            "top_p": 1,
            "max_tokens": 9,
            "max_completion_tokens": 9,
            "seed": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "reasoning_effort": "low",
            "verbosity": "low",
        },
        {
            "model": mark("model"),
            "messages": [{"role": "user", "content": [{"type": "text", "text": mark("task")}]}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ],
    "POST /api/v1/keys/generate": [
        {"name": mark("label"), "scopes": ["chat"], "expires_in_days": 1, "rate_limits": {"chat": "9/minute"}},
        {"name": mark("label"), "user_id": mark("user"), "expires_at": "2030-01-01T00:00:00Z"},
    ],
    "POST /api/v1/keys/{key_prefix}/rotate": [{"grace_s": 60}],
    "POST /api/admin/blocks": [{"kind": "user", "subject": mark("user"), "for_s": 60, "reason": mark("reason")}],
    "POST /api/admin/users": [{"username": mark("login"), "email": f"{mark('mailbox')}@example.org", "role": "user"}],
    "PATCH /api/admin/users/{user_id:path}": [{"role": "user", "active": False}],
    "POST /api/v1/presence/heartbeat": [
        {"session_id": mark("session"), "client_id": mark("client"), "device_type": "mobile"}
    ],
    "POST /api/admin/broadcast": [
        {"message": mark("message"), "title": mark("title"), "users": [mark("user")], "dry_run": False},
        {"message": mark("message"), "data": {mark("name"): mark("datum")}, "devices": ["mobile"], "expires_s": 60},
    ],
    "POST /api/admin/users/{user_id:path}/disconnect": [
        {"session_id": mark("socket"), "reason": mark("reason"), "dry_run": False},
        {"reason": mark("reason"), "block_s": 60},
    ],
}
# What PostgreSQL has of them, by design: what administrators did, to whom and why; and who is kept out.
STORED = {
    "admin_audit": {"login", "message", "title", "user", "reason", "path", "socket", "retry"},
    "blocks": {"path", "reason", "user"},
    "api_keys": {"label"},
    "tasks": {"task", "stop"},
    "task_submissions": {"retry"},
    "users": {"login", "mailbox@example.org"},
}
# Never written down by anybody: answers, the keys of model servers, what these say of themselves.
NOWHERE = ["Paris", "sk-upstream", "sk-secret"]

TABLE = {f"{operation.method} {operation.path}": operation for operation in operations(Anything())}  # type: ignore[arg-type]


def test_every_field_of_every_body_is_marked() -> None:
    for name, operation in TABLE.items():
        said = {field for body in BODIES.get(name, []) for field in body}
        assert said == fields_of(operation.body), f"{name}: say in BODIES what it takes"


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the node prints; before the node, as is the leave to send every error."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("service.telemetry.sentry.EVENTS_PER_MINUTE", 1000)
    return stream


async def test_a_secret_in_any_input_is_in_no_log_span_metric_error_nor_in_the_name_of_a_key(
    stdout: io.StringIO,
    told: RunningNode,
    collector: Sink,
    model_server: Upstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticket = (await told.http.post("/api/v1/ws-tickets")).json()["ticket"]
    await hold(told, "usr_x", mark("session"), mark("task"))
    await talk(told, ticket)
    errors = await fail_on_sockets(told, monkeypatch)
    statuses = [await send(told, *request) for request in requests()]
    assert {200, 202, 204, 401, 404, 422} <= set(statuses)
    assert max(statuses) < 500
    errors += await fail_everywhere(told, monkeypatch)
    errors += await fail_in_the_background(told, monkeypatch)
    await told.http.get("/api/v1/models", headers={"x-request-id": LAST, "traceparent": f"00-{TRACE}-{TRACE[:16]}-01"})
    await eventually(lambda: LAST in stdout.getvalue(), within_s=10)
    await eventually(lambda: any(span.trace_id.hex() == TRACE for span in collector.spans()), within_s=10)
    await eventually(lambda: len(collector.events()) == errors, within_s=10)
    assert len([span for span in collector.spans() if span.events]) == len(TABLE)
    assert mark("task") in json.dumps(model_server.bodies)
    sought = [mark(""), told.key, ticket, *NOWHERE]
    places = {
        "logs": stdout.getvalue(),
        "spans and errors": "\n".join(body.decode("latin-1") for _, body in collector.posts),
        "metrics": (await told.private.get("/metrics")).text,
        "names of keys": "\n".join(key_names(told)),
    }
    assert {place: [secret for secret in sought if secret in text] for place, text in places.items()} == {
        "logs": [],
        "spans and errors": [],
        "metrics": [],
        "names of keys": [],
    }
    tables = await contents(told)
    marks = {place for _, *request in requests() for place in marks_in(request)}
    found = {table: {place for place in marks if mark(place) in text} for table, text in tables.items()}
    assert {table: places for table, places in found.items() if places} == STORED
    assert [secret for secret in (told.key, ticket, *NOWHERE) for text in tables.values() if secret in text] == []


def requests() -> Iterator[tuple[Operation | str, dict[str, Any]]]:
    """Each operation as it should be asked; with a query; with a body that does not fit; with keys that are none.

    From the table's end, so that DELETE comes before POST and what is made stays.
    """
    for name, operation in reversed(TABLE.items()):
        for body in BODIES.get(name, [None]):  # type: ignore[list-item]
            yield operation, {"json": body}
        yield operation, {"json": {mark("field"): mark("value")}, "params": QUERY}
        yield operation, {"content": mark("junk"), "headers": {"content-type": "application/json"}}
        yield operation, {"headers": {"x-api-key": mark("key")}}
        yield operation, {"headers": {"x-api-key": "", "authorization": f"Bearer {mark('bearer')}"}}
    yield f"/{mark('nowhere')}", {}


def marks_in(request: Any) -> set[str]:
    words = json.dumps([request, HEADERS, mark("path")], default=str).replace('"', " ").replace("/", " ").split()
    return {word.removeprefix(mark("")).strip("],[") for word in words if word.startswith(mark(""))}


async def send(node: RunningNode, to: Operation | str, request: dict[str, Any]) -> int:
    method, path = ("GET", to) if isinstance(to, str) else (to.method, to.path)
    head, brace, tail = path.partition("{")
    path = head + (mark("path") + tail.partition("}")[2] if brace else "")
    request = request | {"headers": HEADERS | request.get("headers", {})}
    return (await node.http.request(method, path, **request)).status_code


async def talk(node: RunningNode, ticket: str) -> None:
    """By WebSocket: a ticket that is good and one that is none, chats, and what cannot be understood."""
    assert (await refusal(node, key="", ticket=mark("ticket")))[0] == 401
    headers = {name: HEADERS[name] for name in ("user-agent", "cookie", "x-unknown", "tracestate", "baggage")}
    async with socket(node, "", headers, ticket=ticket, client_id=mark("client")) as client:
        chat = {"agent": "reasoning", "task": mark("task"), "model": "good", "parameters": {"stop": [mark("stop")]}}
        await client.say("chat", id=mark("chat"), **chat)
        await client.hear("done")
        await client.say("chat", id=mark("chat"), **chat | {"model": "refuses"})
        await client.hear("error")
        await client.say("cancel", id=mark("nobody"))
        await client.hear("error")
        await client.say(mark("type"), **{mark("field"): mark("value")})
        await client.hear("error")


async def fail_everywhere(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> int:
    """Have every operation raise what nobody foresaw, once all of the request is read; how many there were."""
    with monkeypatch.context() as patch:
        patch.setattr("service.http.operation.Call", explode)
        for name, operation in TABLE.items():
            assert await send(node, operation, {"json": BODIES.get(name, [None])[0]}) == 500  # type: ignore[list-item]
    return len(TABLE)


def explode(*_: Any, **__: Any) -> Any:
    """With a text that has something of everything, as those of libraries may."""
    raise RuntimeError(
        f"cannot reach postgresql://atp:{mark('password')}@db/atp password={mark('password')} {mark('who')}@example.org"
        f" sk-{mark('secret')} {mark('said')!r} 'what {mark('said')} is' input_value={mark('said')}"
    ) from ValueError(repr(mark("cause")))


async def fail_on_sockets(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> int:
    """In the handshake, and in a chat."""
    with monkeypatch.context() as patch:
        patch.setattr("service.routes.admission.check", explode)
        assert (await refusal(node))[0] == 500
    async with socket(node) as client:
        with monkeypatch.context() as patch:
            patch.setattr("service.agents.openai_client.OpenAIClient.stream", explode)
            await client.say("chat", id="c", agent="reasoning", task=mark("task"), model="good")
            assert (await client.hear("error"))["problem"]["status"] == 500
    return 2


async def fail_in_the_background(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> int:
    """A work that is begun anew, and a library's line."""
    with monkeypatch.context() as patch:
        patch.setattr(node.parts.metrics.loop_lag, "observe", explode)

        async def failed() -> bool:
            return await node.metric('atp_unhandled_exceptions_total{component="background"}') == 1

        await eventually(failed, within_s=10)
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", f"{mark('who')}@example.org")
    return 1


def key_names(node: RunningNode) -> list[str]:
    with redis.Redis.from_url(node.settings.redis_url.get_secret_value()) as client:
        names = [name.decode("latin-1") for name in client.scan_iter(count=1000)]
    assert len([name for name in names if name.startswith("atp:{chat:")]) == 4
    return names


async def contents(node: RunningNode) -> dict[str, str]:
    """Every row of every table as text."""
    tables = await node.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    rows = {name: await node.rows(f'SELECT t::text FROM "{name}" t') for (name,) in tables}  # noqa: S608
    return {name: "\n".join(text for (text,) in found) for name, found in rows.items()}
