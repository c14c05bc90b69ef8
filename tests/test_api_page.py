"""docs/api.md is true: its commands are run, in order, and what they answer has the shape that the page shows."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

from tests.nodes import RunningNode

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def exchanges() -> list[tuple[str, str]]:
    """Each command with what the page shows below it."""
    parts = [part for block in BLOCKS for part in re.split(r"^\$ ", block, flags=re.MULTILINE)]
    pairs = [re.match(r"curl(?:[^\n]*\\\n)*[^\n]*\n", part) for part in parts]
    return [(found[0], found.string[found.end() :].strip()) for found in pairs if found]


def keys_of(text: str) -> set[str]:
    return set(re.findall(r'"(\w+)": ?', text))


def headers_of(text: str) -> set[str]:
    head = text.partition("\n\n")[0]
    return set(re.findall(r"^([a-z-]+): ", head, re.MULTILINE)) if text.startswith("HTTP/") else set()


def test_the_page_has_commands() -> None:
    assert len(exchanges()) == 13


async def test_every_command_of_the_page_answers_as_it_shows(node: RunningNode) -> None:
    environment = {"PATH": os.environ["PATH"], "ATP": node.url, "KEY": node.key}
    for command, shown in exchanges():
        got = await run(command, environment)
        assert keys_of(shown) == keys_of(got) - {"seq"}, command
        assert headers_of(shown) <= headers_of(got.lower().replace("http/1.1", "HTTP/1.1")), command
        if "text/csv" in command:
            assert got.splitlines()[0] == shown


async def run(command: str, environment: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/bash", "-c", command], env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r", "")
