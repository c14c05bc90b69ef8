"""The preview draws what Grafana would: texts, values with units, series, for a panel of every kind."""

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.observability.preview.bundle import bundled
from tests.observability.preview.photograph import chromium, document, photograph
from tests.observability.tools import missing

SAMPLE = Path(__file__).parent / "preview" / "sample"
COLD_S = 200  # npm ci and the bundle, the first time


def load(name: str) -> dict[str, Any]:
    return json.loads((SAMPLE / name).read_text())


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    if chromium() is None:
        missing("chromium is not installed (make tools)")
    bundled()


@pytest.fixture(scope="module")
def html(tools: None) -> str:
    return document(load("dashboard.json"), load("data.json")).split('<script id="input"')[0]


def text(html: str) -> str:
    """What a reader sees, each piece of text between two bars."""
    return re.sub(r"(\s*\|\s*)+", "|", re.sub(r"<style.*?</style>|<[^>]*>", "|", html, flags=re.DOTALL))


def panels(html: str) -> dict[int, str]:
    parts = re.split(r'<div [^>]*data-panel="(\d+)"', html)
    return {int(number): part.split(">", 1)[1] for number, part in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.timeout(COLD_S)
def test_the_header_says_that_it_is_a_preview_and_of_what(html: str) -> None:
    seen = text(html)
    assert "|Sample|· preview drawn with Grafana's components|instance: 10.0.0.1:9000   2026-11-23 19:00:00 to " in seen


@pytest.mark.timeout(COLD_S)
@pytest.mark.parametrize(
    ("panel", "shown"),
    [
        (2, "|Online users|42|"),
        (3, "|Latency of 10.0.0.1:9000|734.00|ms|"),
        (4, "|Redis memory|62%|used|"),
        (5, "|Firing alerts|no alerts|"),
        (7, "|mobile|20|tablet|8|desktop|14|"),
        (8, "|Response time|p50|p99|"),
        (9, "|key-17|1.20|K|key-4|640|other|75|"),
        (10, "|50%|13%|38%|"),
        (11, "|postgresql|up|redis|up|down|up|"),
        (12, "|Instance|Version|__name__|10.0.0.1:9000|0.1.0|atp_build_info|10.0.0.2:9000|0.1.1|atp_build_info|"),
        (13, "|key|tokens|cost|mobile app|34.5 K|$12.50|nightly|1.20 K|$0.25|"),
        (14, "|100 ms|500 ms|+Inf|19:00|"),
        (15, '|2026-11-23 19:02:00.000|{"event":"task.failed","task":"chat"}|2026-11-23 19:01:00.000|'),
        (16, "|Broadcast|a message, or|drain|10.0.0.1:9000|.|"),
    ],
)
def test_a_panel_shows_its_values_in_their_units(html: str, panel: int, shown: str) -> None:
    assert shown in text(panels(html)[panel])


@pytest.mark.timeout(COLD_S)
def test_every_series_is_drawn(html: str) -> None:
    drawn = {number: re.findall(r'data-drawn="(\d+)"', part) for number, part in panels(html).items()}
    assert {number: found for number, found in drawn.items() if found} == {
        7: ["3"], 8: ["2"], 10: ["3"], 11: ["2"], 14: ["3"], 15: ["2"],
    }  # fmt: skip


def buckets(html: str) -> list[list[str]]:
    """Of the heatmap, the counts that each row shows, the lowest bucket first; 0 is no cell."""
    rows = re.split(r">(?:100 ms|500 ms|\+Inf)<", panels(html)[14])[1:]
    return [re.findall(r'data-count="(\d+)"', row) for row in rows]


@pytest.mark.timeout(COLD_S)
def test_a_heatmap_counts_each_bucket_by_itself(html: str) -> None:
    assert buckets(html) == [
        ["3", "4", "2", "5", "6", "7", "5", "4", "3", "4"],
        ["2", "3", "4", "4", "5", "7", "4", "4", "3", "2"],
        ["1", "1", "2", "1"],
    ]


@pytest.mark.timeout(COLD_S)
def test_buckets_that_were_not_asked_for_as_a_heatmap_keep_what_is_below_them() -> None:
    dashboard = load("dashboard.json")
    dashboard["panels"] = [panel for panel in dashboard["panels"] if panel["id"] == 14]
    dashboard["panels"][0]["targets"][0]["format"] = "time_series"
    html = document(dashboard, load("data.json")).split('<script id="input"')[0]
    assert buckets(html)[1] == ["5", "7", "6", "9", "11", "14", "9", "8", "6", "6"]


@pytest.mark.timeout(COLD_S)
def test_a_closed_row_hides_its_panels_and_no_panel_fails(html: str) -> None:
    assert sorted(panels(html)) == [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    assert "failed:" not in html


@pytest.mark.timeout(COLD_S)
def test_a_kind_that_cannot_be_drawn_says_so_in_its_place() -> None:
    dashboard = load("dashboard.json")
    dashboard["panels"] = [{"id": 1, "type": "geomap", "title": "Map", "gridPos": {"x": 0, "y": 0, "w": 8, "h": 4}}]
    assert "|Map|failed: no panel of kind geomap|" in text(document(dashboard, load("data.json")))


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The parts of a PNG by name, those of one name joined (RFC 2083, 3.2)."""
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    return found


@pytest.mark.timeout(COLD_S)
def test_the_picture_is_small_and_not_blank(tmp_path: Path) -> None:
    png = photograph(load("dashboard.json"), load("data.json"), tmp_path).read_bytes()
    parts = chunks(png)
    assert struct.unpack(">II", parts[b"IHDR"][:8]) == (1600, 1478)
    assert len(png) < 300_000
    assert len(set(zlib.decompress(parts[b"IDAT"]))) > 100  # a blank page has a colour or two
