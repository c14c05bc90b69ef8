"""A dashboard and its answers -> a page, and the page photographed by a headless Chromium."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.observability.preview.bundle import bundled, node

WIDTH_PX = 1600
# Time of the page, not of the clock: it is over as soon as nothing is left to wait for.
SETTLE_MS = 8_000
PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>preview</title>
<link rel="stylesheet" href="{tools}/preview.css"><link rel="stylesheet" href="{tools}/src/page.css"></head>
<body><div id="root"></div><script id="input" type="application/json">{data}</script>
<script src="{tools}/preview.js"></script></body></html>"""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def height_px(dashboard: dict[str, Any]) -> int:
    """Of the whole page: a grid unit is 30 px and a gap of 8, below a header of 64."""
    spots = [panel["gridPos"] for panel in dashboard["panels"]]
    return 64 + max(spot["y"] + spot["h"] for spot in spots) * 38 + 8


def page(dashboard: dict[str, Any], data: dict[str, Any]) -> str:
    """`data` is the whole file of answers; only the dashboard's own part goes into the page."""
    times = {name: data[name] for name in ("from_ms", "to_ms")}
    answers = data["dashboards"].get(dashboard["uid"], {})
    text = json.dumps({**times, "width": WIDTH_PX, "dashboard": dashboard, "data": answers})
    return PAGE.format(tools=bundled().as_uri(), data=text.replace("</", "<\\/"))


def browse(dashboard: dict[str, Any], data: dict[str, Any], *wish: str) -> str:
    """Open the page with what is wished for (`--dump-dom`, `--screenshot=FILE`) and return what Chromium printed."""
    with tempfile.TemporaryDirectory(prefix="preview-") as folder:
        file = Path(folder) / "page.html"
        file.write_text(page(dashboard, data))
        size = f"--window-size={WIDTH_PX},{height_px(dashboard)}"
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        wait = [f"--virtual-time-budget={SETTLE_MS}", "--allow-file-access-from-files", size]
        command = [chromium() or "chromium", *flags, *wait, *wish, file.as_uri()]
        return subprocess.run(command, timeout=120, capture_output=True, text=True, check=True).stdout


def document(dashboard: dict[str, Any], data: dict[str, Any]) -> str:
    """The page's HTML once everything is drawn."""
    return browse(dashboard, data, "--dump-dom")


def photograph(dashboard: dict[str, Any], data: dict[str, Any], out: Path) -> Path:
    """Write `<uid>.png` into the folder `out`."""
    picture = (out / f"{dashboard['uid']}.png").resolve()
    with tempfile.TemporaryDirectory(prefix="preview-") as folder:
        raw = Path(folder) / "raw.png"
        browse(dashboard, data, f"--screenshot={raw}")
        node("src/compress.mjs", raw, picture, timeout_s=120)
    return picture
