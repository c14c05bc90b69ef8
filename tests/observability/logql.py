"""Every LogQL query that Grafana is given: of the panels, of the links to Explore, and of the way from a span."""

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

import yaml

from tests.observability.boards import BOARDS, GRAFANA, Json, panels, targets

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
