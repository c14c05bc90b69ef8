"""The nginx of compose.yaml, for real, in front of two nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.live.clients import socket
from tests.nodes import RunningNode, node_settings, running
from tests.observability.tools import require_tool
from tests.ports import reserved_port
from tests.upstream import Upstream
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@dataclass
class Front:
    """nginx before two nodes; `second` ends the second of them."""

    url: str
    key: str
    http: httpx2.AsyncClient
    node: RunningNode
    second: AsyncExitStack


def configuration(folder: Path, port: int, nodes: list[RunningNode]) -> Path:
    """The file itself, with this machine's addresses and folders."""
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    for number, node in enumerate(nodes, 1):
        text = text.replace(f"node-{number}:8000", f"127.0.0.1:{node.server.port}")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/tmp/", f"{folder}/")  # noqa: S108 - the container's
    text = text.replace("/usr/share/atp/runbooks/", f"{ROOT}/observability/prometheus/runbooks/")
    # /dev/stdout of a test is a pipe, which may not be opened again.
    text = text.replace("/dev/stdout", f"{folder}/access.log").replace("/dev/stderr", f"{folder}/error.log")
    file = folder / "nginx.conf"
    file.write_text(text)
    return file


@pytest.fixture
async def front(tmp_path: Path, database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[Front]:
    settings = node_settings(database_url, redis_url, model_server, trusted_proxies="127.0.0.1")
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(settings))
        second = await stack.enter_async_context(AsyncExitStack())
        two = await second.enter_async_context(running(settings))
        port = stack.enter_context(reserved_port())
        file = configuration(tmp_path, port, [one, two])
        # No process of another user: as root nginx would make its own, who may not read the repository.
        arguments = ["-c", str(file), "-e", str(tmp_path / "error.log"), "-g", "daemon off; master_process off;"]
        nginx = await asyncio.create_subprocess_exec(require_tool("nginx"), *arguments)
        url = f"http://127.0.0.1:{port}"
        headers = {"x-api-key": one.key}
        try:
            # Plain HTTP: without `verify=False` the client would read the certificates of the system each time.
            async with httpx2.AsyncClient(verify=False, base_url=url, headers=headers, timeout=10) as http:

                async def up() -> bool:
                    try:
                        return (await http.get("/healthz")).status_code == 200
                    except httpx2.TransportError:
                        return False

                await eventually(up, within_s=10)
                yield Front(url, one.key, http, one, second)
        finally:
            if nginx.returncode is None:
                nginx.kill()
            await nginx.wait()


async def test_chats_and_sockets_pass(front: Front) -> None:
    chat = {"agent": "reasoning", "task": "capital?", "model": "good"}
    answer = await front.http.post("/api/v1/chat", json=chat)
    assert answer.status_code == 200, answer.text
    async with socket(front) as client:
        assert client.ready["type"] == "ready"
        assert client.connection.protocol.extensions == []


async def test_an_address_that_the_client_made_up_is_overwritten(front: Front) -> None:
    block = {"kind": "address", "subject": "203.0.113.9", "for_s": 600, "reason": "test"}
    assert (await front.http.post("/api/admin/blocks", json=block)).status_code == 201
    spoofed = {"x-forwarded-for": "203.0.113.9"}

    async def refused_without_nginx() -> bool:
        return (await front.node.http.get("/api/v1/agents", headers=spoofed)).status_code == 403

    await eventually(refused_without_nginx)
    assert (await front.http.get("/api/v1/agents", headers=spoofed)).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
async def test_the_private_paths_are_not_there(front: Front, path: str) -> None:
    assert (await front.http.get(path)).status_code == 404


async def test_runbooks_are_served_as_text(front: Front) -> None:
    answer = await front.http.get("/runbooks/AtpDown.md")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text.startswith("# AtpDown\n")


async def test_one_node_may_go(front: Front) -> None:
    await front.second.aclose()
    assert [(await front.http.get("/healthz")).status_code for _ in range(10)] == [200] * 10
