"""A real Prometheus over processes of this machine, with ATP's own rules, which live sixty times as fast.

What takes minutes in production takes seconds here: every window of the rules, every `for` and `offset` is divided by
60, and targets are asked once a second. Nothing else of the files is changed.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import yaml

from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers
from service.embedded.processes import Child, Command
from tests.observability.tools import require_tool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "observability" / "prometheus"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FASTER = 60
# Two samples and one to spare, of one a second.
SHORTEST_WINDOW_S = 4
READY = b"GET /-/ready HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
DURATION = re.compile(r"(?P<before>\[|offset )(?P<number>\d+)(?P<unit>[smhd])")

Labels = Mapping[str, str]
Result = list[dict[str, Any]]


def faster(duration: str) -> str:
    """`5m` as `5s`."""
    return f"{max(1, int(duration[:-1]) * UNITS_S[duration[-1]] // FASTER)}s"


def in_query(found: re.Match[str]) -> str:
    window_s = int(found["number"]) * UNITS_S[found["unit"]] / FASTER
    return f"{found['before']}{max(SHORTEST_WINDOW_S, math.ceil(window_s))}s"


def fast_rules(text: str) -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = DURATION.sub(in_query, str(rule["expr"]))
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    return rules


def fast_config(targets: Mapping[str, Sequence[int]], alertmanager: int | None) -> dict[str, Any]:
    """The configuration of compose, asking these ports instead of its names."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [
        {key: value for key, value in job.items() if not key.endswith("_sd_configs") and key != "static_configs"}
        | {"static_configs": [{"targets": [f"{HOST}:{port}" for port in targets[job["job_name"]]]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    managers = [f"{HOST}:{alertmanager}"] if alertmanager else []
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": managers}]}]
    return config


def fast_alertmanager() -> str:
    """ATP's own configuration, to be formatted with the bridge's `port` and the `folder` of its token."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    text = re.sub(r"(group_wait|group_interval|repeat_interval): (\d+[smh])", lambda m: f"{m[1]}: {faster(m[2])}", text)
    text = text.replace("{", "{{").replace("}", "}}")
    text = text.replace("http://bridge:9095/", f"http://{HOST}:{{port}}/")
    return text.replace("/run/secrets/bridge_token", "{folder}/token")


class Monitoring:
    """`targets`: the ports of each job."""

    def __init__(
        self, folder: StateFolder, port: int, targets: Mapping[str, Sequence[int]], alertmanager: int | None = None
    ) -> None:
        self._folder, self.port = folder, port
        self._targets = {**targets, "prometheus": [port]}
        self._config = fast_config(self._targets, alertmanager)
        self._child: Child

    def instances(self) -> dict[str, str]:
        """A name for each target that is the same in every run: its job, and which of these it is."""
        return {f"{HOST}:{port}": f"{job}-{n}" for job, ports in self._targets.items() for n, port in enumerate(ports)}

    async def start(self) -> None:
        own = self._folder.path / "prometheus"
        (own / "rules").mkdir(parents=True, exist_ok=True)
        (own / "prometheus.yml").write_text(yaml.safe_dump(self._config))
        for rules in (PROMETHEUS / "rules").glob("*.yml"):
            (own / "rules" / rules.name).write_text(yaml.safe_dump(fast_rules(rules.read_text())))
        argv = [
            require_tool("prometheus"),
            f"--config.file={own / 'prometheus.yml'}",
            f"--storage.tsdb.path={own / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]
        self._child = Child(self._folder, "prometheus", Command(argv))
        await self._child.ready(lambda: answers(self.port, READY, b" 200 "), 30.0)

    async def stop(self) -> None:
        await self._child.stop()

    async def instant(self, query: str) -> Result:
        return await self._ask("query", query=query)

    async def ranged(self, query: str, since: float, step_s: int = 1) -> Result:
        """From `since`, as Unix time, until now."""
        return await self._ask("query_range", query=query, start=since, end=time.time(), step=step_s)

    async def label_values(self, selector: str, label: str) -> list[str]:
        found: list[str] = await self._ask(f"label/{label}/values", **{"match[]": selector})
        return found

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        found = await self._ask("alerts")
        return {alert["labels"]["alertname"] for alert in found["alerts"] if alert["state"] == "firing"}

    async def _ask(self, what: str, **given: Any) -> Any:
        async with httpx2.AsyncClient(verify=False, timeout=20) as http:
            answer = await http.get(f"http://{HOST}:{self.port}/api/v1/{what}", params=given)
        found = answer.json()
        assert found["status"] == "success", (found, given)
        data = found["data"]
        return data["result"] if isinstance(data, dict) and "result" in data else data
