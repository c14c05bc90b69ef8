"""Write every dashboard as JSON.

`ATP_API_URL` is where an administrator's browser reaches the API, `ATP_RUNBOOKS_URL` where it finds the runbooks.
"""

import os
from pathlib import Path

from observability.grafana.builder.board import API_URL, RUNBOOKS_URL
from observability.grafana.builder.boards import boards

DASHBOARDS = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    DASHBOARDS.mkdir(exist_ok=True)
    for board in boards():
        board.api_url = os.environ.get("ATP_API_URL", API_URL)
        board.runbooks_url = os.environ.get("ATP_RUNBOOKS_URL", RUNBOOKS_URL)
        (DASHBOARDS / f"{board.uid}.json").write_text(board.json())


if __name__ == "__main__":
    main()
