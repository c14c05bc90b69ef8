"""What every request passes: request id, problems, body caps, content type, JSON; over a real node."""

import json
import re
import socket
from typing import Any

import pytest

from tests.nodes import RunningNode

CHAT = "/api/v1/chat"
JSON = {"content-type": "application/json"}


def body(task: str = "x") -> bytes:
    return json.dumps({"agent": "reasoning", "task": task, "model": "good"}).encode()


async def problem(node: RunningNode, status: int, code: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    response = await node.http.request(method, path, **more)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:atp:problem:{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


async def test_a_request_id_comes_back_and_a_hostile_one_is_replaced(node: RunningNode) -> None:
    mine = await node.http.get("/healthz", headers={"x-request-id": "trace-me-123"})
    assert mine.headers["x-request-id"] == "trace-me-123"
    for hostile in ("short", "a" * 129, "has spaces in it", 'quote"quote"quote'):
        other = await node.http.get("/healthz", headers={"x-request-id": hostile})
        assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])


async def test_an_unknown_path_is_a_404_problem(node: RunningNode) -> None:
    await problem(node, 404, "not-found", "GET", "/api/v1/nothing")


async def test_a_wrong_method_is_405_and_says_which_are_allowed(node: RunningNode) -> None:
    response = await node.http.delete("/api/v1/models")
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
    await problem(node, 405, "method-not-allowed", "GET", CHAT)


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/debug", "//metrics", "/api/../metrics"])
async def test_the_private_paths_are_404_on_the_public_port(node: RunningNode, path: str) -> None:
    await problem(node, 404, "not-found", "GET", path)


async def test_healthz_says_nothing_of_the_inside(node: RunningNode) -> None:
    response = await node.http.get("/healthz", headers={"x-api-key": ""})
    assert (response.status_code, response.text) == (200, "# ok\n")


async def test_the_private_port_tells_metrics_and_readiness(node: RunningNode) -> None:
    assert (await node.private.get("/livez")).status_code == 200
    ready = await node.private.get("/readyz")
    assert ready.json() == {"ready": True, "dependencies": {"postgresql": True, "redis": True}}
    assert "atp_build_info" in (await node.private.get("/metrics")).text
    node.parts.draining.set()
    assert (await node.private.get("/readyz")).status_code == 503


async def test_another_content_type_is_415(node: RunningNode) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content-type": content_type}
        await problem(node, 415, "unsupported-media-type", "POST", CHAT, content=body(), headers=headers)
    accepted = await node.http.post(CHAT, content=body(), headers={"content-type": "Application/JSON; charset=utf-8"})
    assert accepted.status_code == 200


async def test_a_body_over_one_megabyte_is_413_declared_or_not(node: RunningNode) -> None:
    big = body("x" * 1_000_001)
    declared = await problem(node, 413, "payload-too-large", "POST", CHAT, content=big, headers=JSON)
    assert declared["detail"] == "The request body may have at most 1000000 bytes."

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 65_536

    await problem(node, 413, "payload-too-large", "POST", CHAT, content=chunks(), headers=JSON)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"agent": "reasoning", "task": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", 400),
        (b'{"agent": "reasoning", "task": "\xff\xfe"}', 400),
        (b'{"agent": "reasoning", "task": "x", "parameters": {"temperature": NaN}}', 422),
        (b'{"agent": "reasoning", "task": "x", "parameters": {"temperature": Infinity}}', 422),
        (b'{"agent": "reasoning", "task": "x", "parameters": {"temperature": 1e999}}', 422),
        (b'{"agent": "reasoning", "task": "x", "parameters": {"max_tokens": ' + b"9" * 5000 + b"}}", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
    ],
)
async def test_hostile_json_is_a_quick_problem(node: RunningNode, content: bytes, status: int) -> None:
    response = await node.http.post(CHAT, content=content, headers=JSON)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.elapsed.total_seconds() < 0.5


async def test_a_body_that_ends_early_or_dribbles_holds_nobody(node: RunningNode, monkeypatch: Any) -> None:
    monkeypatch.setattr("service.http.body.BODY_DEADLINE_S", 0.3)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {node.key}\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", node.server.port)) as client:
        client.setblocking(False)
        import asyncio

        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, f"{head}content-length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(2):
            answer = await loop.sock_recv(client, 4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:atp:problem:request-timeout" in answer


async def test_an_unforeseen_error_is_a_500_without_its_inside(node: RunningNode, monkeypatch: Any) -> None:
    async def explode(*_: Any) -> None:
        raise RuntimeError("postgresql://user:secret@host")

    monkeypatch.setattr("service.keys.verifier.KeyVerifier.verify", explode)
    document = await problem(node, 500, "internal", "GET", "/api/v1/models")
    assert "secret" not in json.dumps(document)
    assert await node.metric('atp_unhandled_exceptions_total{component="http"}') == 1


async def test_requests_are_counted_by_template_and_never_by_path(node: RunningNode) -> None:
    await node.http.get("/api/v1/models")
    await node.http.get("/random/a")
    await node.http.get("/random/b")
    await node.http.request("BREW", "/coffee")
    name = "http_server_request_duration_seconds_count"
    labels = 'http_request_method="{}",http_response_status_code="{}",http_route="{}"'
    assert await node.metric(f"{name}{{{labels.format('GET', 200, '/api/v1/models')}}}") == 1
    assert await node.metric(f"{name}{{{labels.format('GET', 404, 'unmatched')}}}") == 2
    assert await node.metric(f"{name}{{{labels.format('_OTHER', 404, 'unmatched')}}}") == 1
