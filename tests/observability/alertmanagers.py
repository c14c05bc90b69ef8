"""A real Alertmanager that posts to a bridge, and its clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers
from service.embedded.processes import Child, Command
from tests.observability.bridges import PAGE, SAID, TOKEN
from tests.observability.tools import require_tool
from tests.ports import reserved_port

READY = b"GET /-/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
# As short as it goes, so that what takes minutes in production takes a second.
CONFIGURATION = """
route: {{receiver: bridge, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1s}}
receivers:
  - name: bridge
    webhook_configs:
      - url: http://127.0.0.1:{port}/alerts
        send_resolved: true
        http_config: {{authorization: {{credentials_file: {folder}/token}}}}
"""


class Alertmanager:
    def __init__(self, http: httpx2.AsyncClient, port: int) -> None:
        self._http, self.port = http, port

    async def fire(self, **labels: str) -> None:
        await self._post({"labels": PAGE | labels, "annotations": SAID})

    async def resolve(self, **labels: str) -> None:
        await self._post({"labels": PAGE | labels, "annotations": SAID, "endsAt": datetime.now(UTC).isoformat()})

    async def _post(self, alert: dict[str, Any]) -> None:
        (await self._http.post("/api/v2/alerts", json=[alert])).raise_for_status()

    async def count(self, name: str) -> float:
        """Of its notifications by webhook: `requests`, tries included; `failed`, given up until the next interval."""
        series = {
            "requests": 'alertmanager_notification_requests_total{integration="webhook"}',
            "failed": 'alertmanager_notification_requests_failed_total{integration="webhook"}',
        }[name]
        lines = (await self._http.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


@asynccontextmanager
async def alertmanager(
    folder: Path, bridge_port: int, token: str = TOKEN, configuration: str = CONFIGURATION
) -> AsyncIterator[Alertmanager]:
    """`configuration` has `{port}` and `{folder}` for the bridge's port and the folder with the token."""
    program = require_tool("alertmanager")
    state = StateFolder.open(folder)
    (folder / "token").write_text(token)
    (folder / "config.yml").write_text(configuration.format(port=bridge_port, folder=folder))
    with reserved_port() as port:
        options = [f"--config.file={folder}/config.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
        child = Child(state, "alertmanager", Command([program, *options, f"--web.listen-address={HOST}:{port}"]))
        try:
            await child.ready(lambda: answers(port, READY, b" 200 "), 10)
            async with httpx2.AsyncClient(verify=False, base_url=f"http://{HOST}:{port}", timeout=10) as http:
                yield Alertmanager(http, port)
        finally:
            await child.stop()
