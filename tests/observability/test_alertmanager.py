"""Where alerts go and which are held back, asked of amtool and of a real Alertmanager."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.observability.rules import PROMETHEUS, Rule, alerts
from tests.observability.tools import require_tool, succeed
from tests.ports import reserved_port
from tests.waiting import eventually

CONFIG = PROMETHEUS / "alertmanager.yml"


def test_amtool_finds_no_fault_in_the_configuration() -> None:
    assert "4 receivers" in succeed("amtool", "check-config", CONFIG)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{'-'.join(sorted(alert.labels.values()))}")
def test_each_alert_goes_to_the_receiver_of_its_severity(alert: Rule) -> None:
    receiver = {"page": "page", "ticket": "ticket", "none": "check-in"}[alert.labels["severity"]]
    labels = [f"{name}={value}" for name, value in {"alertname": alert.name, **alert.labels}.items()]
    told = succeed(
        "amtool", "config", "routes", "test", "--config.file", CONFIG, f"--verify.receivers={receiver}", *labels
    )
    assert told.split() == [receiver]


def test_what_nobody_is_to_hear_of_goes_nowhere() -> None:
    assert succeed("amtool", "config", "routes", "test", "--config.file", CONFIG, "severity=none").split() == ["nobody"]


class Manager:
    """A real Alertmanager with our file; nobody listens where it would send to."""

    def __init__(self, port: int, process: Process) -> None:
        self.port, self.process = port, process

    async def suppressed(self, *firing: str, by: tuple[str, ...] = ("alertname",)) -> set[str]:
        """Post alerts, each `name label=value …`; those of them that are inhibited, told `by` these labels."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}/api/v2", timeout=5) as http:

            async def up() -> bool:
                assert self.process.returncode is None, "Alertmanager ended"
                try:
                    return (await http.get("/status")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(up, within_s=20)
            await self._post(http, [as_labels(alert) for alert in firing])
            # Alertmanager takes alerts in one after the other: once this pair is sorted out, so are those before it.
            last = [{"alertname": name, "environment": "last"} for name in ("AtpProbeFailed", "AtpWSDropStorm")]
            await self._post(http, last)

            async def held_back() -> list[dict[str, str]]:
                found = (await http.get("/alerts")).json()
                return [alert["labels"] for alert in found if alert["status"]["state"] == "suppressed"]

            async def sorted_out() -> bool:
                return last[1] in await held_back()

            await eventually(sorted_out, within_s=20)
            ours = [labels for labels in await held_back() if labels["environment"] == "test"]
            return {" ".join(labels.get(name, "") for name in by) for labels in ours}

    @staticmethod
    async def _post(http: httpx2.AsyncClient, alerts: list[dict[str, str]]) -> None:
        (await http.post("/alerts", json=[{"labels": labels} for labels in alerts])).raise_for_status()


def as_labels(alert: str) -> dict[str, str]:
    name, *labels = alert.split()
    return {"alertname": name, "environment": "test", **dict(label.split("=") for label in labels)}


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    binary = require_tool("alertmanager")
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        log = stack.enter_context((tmp_path / "log").open("wb"))
        arguments = [f"--config.file={CONFIG}", f"--storage.path={tmp_path}", "--cluster.listen-address="]
        listen = f"--web.listen-address=127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(binary, *arguments, listen, stdout=log, stderr=log)
        try:
            yield Manager(port, process)
        finally:
            process.kill()
            await process.wait()


PAGE, TICKET = "severity=page", "severity=ticket"


@pytest.mark.parametrize(
    ("firing", "held_back"),
    [
        (
            (f"AtpDown {PAGE}", f"AtpProbeFailed {PAGE}", f"AtpInstanceMissing {TICKET}", "AtpWatchdog check_in=a"),
            {"AtpProbeFailed", "AtpInstanceMissing"},
        ),
        (
            (f"AtpDependencyDown {PAGE} dependency=redis", f"AtpRateLimiterDegraded {TICKET}",
             f"AtpFleetSnapshotStale {TICKET}", f"AtpTaskStale {TICKET} task=presence-audit",
             f"AtpUsageSpoolGrowing {TICKET}"),
            {"AtpRateLimiterDegraded", "AtpFleetSnapshotStale", "AtpTaskStale"},
        ),
        (
            (f"AtpDependencyDown {PAGE} dependency=postgresql", f"AtpRateLimiterDegraded {TICKET}",
             f"AtpQueueStuck {PAGE} queue=chat", f"AtpUsageSpoolGrowing {TICKET}", "AtpBackupFresh check_in=b"),
            {"AtpQueueStuck", "AtpUsageSpoolGrowing"},
        ),
        ((f"AtpDependencyDown {TICKET} dependency=redis", f"AtpRateLimiterDegraded {TICKET}"), set()),
        ((f"AtpLoopLagHigh {TICKET}", f"AtpPoolExhausted {TICKET}"), set()),
    ],
    ids=["down", "redis", "postgresql", "one-process", "unrelated"],
)  # fmt: skip
async def test_what_follows_from_something_larger_is_held_back(
    manager: Manager, firing: tuple[str, ...], held_back: set[str]
) -> None:
    assert await manager.suppressed(*firing) == held_back


async def test_a_page_holds_back_the_ticket_of_its_own_slo_only(manager: Manager) -> None:
    burn = "AtpErrorBudgetBurn"
    firing = [f"{burn} {PAGE} slo=latency", f"{burn} {TICKET} slo=latency", f"{burn} {TICKET} slo=ws_delivery"]
    assert await manager.suppressed(*firing, by=("slo", "severity")) == {"latency ticket"}
