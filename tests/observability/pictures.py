"""What the dashboards show of a run of `test_proof.py`, as the data that the preview draws: `make pictures`.

Loki does not run here; its panels get the lines that the processes wrote, chosen by the level that the query asks for.
"""

import json
import re
import time
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.observability.boards import BOARDS, Query, queries
from tests.observability.monitoring import Monitoring
from tests.observability.queries import ask, in_sql
from tests.observability.workload import Site

LEVELS = re.compile(r'level=~?"([a-z|]+)"')


async def collect(prometheus: Monitoring, running: Site, since: float) -> dict[str, Any]:
    boards = {}
    for uid, board in BOARDS.items():
        shown: dict[str, dict[str, Any]] = {}
        for query in queries(board):
            shown.setdefault(str(query.panel_id), {})[query.ref] = await answer(query, prometheus, running, since)
        boards[uid] = {"variables": {"job": "All", "instance": "All"}, "panels": shown}
    return {"from_ms": int(since * 1000), "to_ms": int(time.time() * 1000), "dashboards": boards}


async def answer(query: Query, prometheus: Monitoring, running: Site, since: float) -> dict[str, Any]:
    if query.kind == "prometheus":
        kind = "vector" if query.instant else "matrix"
        return {"resultType": kind, "result": await ask(prometheus, query, since)}
    if query.kind == "grafana-postgresql-datasource":
        return {"resultType": "rows", "result": rows(running.dsn, in_sql(query.text, since))}
    return {"resultType": "streams", "result": streams(query, running)}


def rows(dsn: str, sql: str) -> dict[str, Any]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        found = connection.execute(sql.encode()).fetchall()
    return {"columns": list(found[0]) if found else [], "rows": [list(row.values()) for row in found]}


def streams(query: Query, running: Site) -> list[dict[str, Any]]:
    asked = LEVELS.search(query.text)
    levels = asked[1].split("|") if asked else []
    found = []
    for process, job in ((running.nodes[0], "atp"), (running.nodes[1], "atp"), (running.worker, "atp-worker")):
        for line in process.log().splitlines():
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("level") in levels:
                found.append(stream(told, job, line))
    return found


def stream(told: dict[str, Any], job: str, line: str) -> dict[str, Any]:
    moment = time.mktime(time.strptime(told["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return {"stream": {"job": job, "level": told["level"]}, "values": [[str(int(moment * 1e9)), line]]}
