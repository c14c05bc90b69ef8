"""python -m tests.observability.preview --dashboards DIR --data FILE --out DIR: a picture of each dashboard."""

import argparse
import json
from pathlib import Path

from tests.observability.preview.photograph import photograph


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the dashboards with Grafana's published components.")
    parser.add_argument("--dashboards", type=Path, required=True, help="folder of dashboards as JSON")
    parser.add_argument("--data", type=Path, required=True, help="the answers to their queries, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder for <uid>.png")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = json.loads(given.data.read_text())
    for file in sorted(given.dashboards.glob("*.json")):
        picture = photograph(json.loads(file.read_text()), data, given.out)
        print(f"{picture} {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
