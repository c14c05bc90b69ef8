"""A real Alertmanager, the bridge, and a real Sentry-compatible server: what on-call reads, once, and never a loss."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service import doctor
from service.embedded.folder import StateFolder
from service.embedded.ports import HOST
from service.settings import load
from tests.commands.running import atp
from tests.observability.alertmanagers import alertmanager
from tests.observability.bridges import TOKEN, alert, bridge_settings, bridging, group
from tests.observability.bugsink import Bugsink
from tests.ports import reserved_port
from tests.processes import ServiceProcess
from tests.telemetry.sinks import Sink
from tests.waiting import eventually


async def test_an_alert_is_one_issue_firing_repeated_and_resolved(sentry: Bugsink, tmp_path: Path) -> None:
    async with (
        bridging(bridge_settings(sentry.dsn)) as bridge,
        alertmanager(tmp_path / "am", bridge.port) as manager,
    ):
        await manager.fire()
        await eventually(lambda: len(sentry.events()) == 1, within_s=10)

        async def repeated() -> bool:
            return await manager.count("requests") >= 3

        await eventually(repeated, within_s=15)
        assert sentry.issues() == [("A node of ATP does not answer", 1)]
        await manager.resolve()
        await eventually(lambda: len(sentry.events()) == 2, within_s=10)
        assert await manager.count("failed") == 0
        assert await bridge.alerts() == {"sent": 2.0, "failed": 0.0, "refused": 0.0}
    assert sentry.issues() == [("Resolved: A node of ATP does not answer", 2)]
    firing, resolved = sentry.events()
    assert (firing["level"], resolved["level"]) == ("fatal", "info")
    assert firing["fingerprint"] == resolved["fingerprint"] == ["alert", "AtpDown", "alertname=AtpDown"]
    assert (firing["release"], firing["environment"], firing["logger"]) == ("atp@0.1.0", "test", "alertmanager")
    assert firing["tags"] == {
        "alertname": "AtpDown",
        "severity": "page",
        "instance": "node-1:9000",
        "dashboard": "atp-overview",
        "status": "firing",
    }
    told = firing["contexts"]["alert"]
    assert told["description"] == "node-1:9000 has not answered for 2 minutes."
    assert told["runbook"] == "https://runbooks.example/AtpDown.md"
    assert told["dashboard"] == "https://grafana.example/d/atp-overview"


async def test_with_a_wrong_token_nothing_is_told_and_alertmanager_counts_it(sentry: Bugsink, tmp_path: Path) -> None:
    async with (
        bridging(bridge_settings(sentry.dsn)) as bridge,
        alertmanager(tmp_path / "am", bridge.port, token="of-another-bridge-altogether") as manager,
    ):
        await manager.fire()

        async def failed() -> bool:
            return await manager.count("failed") >= 1

        await eventually(failed, within_s=10)
        assert await bridge.alerts() == {"sent": 0.0, "failed": 0.0, "refused": 0.0}
        assert await bridge.metric('atp_bridge_refused_notifications_total{reason="unauthorized"}') >= 1
    assert sentry.events() == []


async def test_while_sentry_is_away_alertmanager_tries_again_until_it_has_all(sentry: Bugsink, tmp_path: Path) -> None:
    async with (
        bridging(bridge_settings(sentry.dsn)) as bridge,
        alertmanager(tmp_path / "am", bridge.port) as manager,
    ):
        await sentry.stop()
        try:
            await manager.fire(instance="node-1:9000")
            await manager.fire(instance="node-2:9000")

            async def failed() -> bool:
                return (await bridge.alerts())["failed"] >= 2

            await eventually(failed, within_s=15)
            ready = await bridge.http.get("/readyz")
            assert (ready.status_code, ready.json()) == (200, {"ready": True, "dependencies": {"sentry": False}})
        finally:
            await sentry.start()
        await eventually(lambda: len(sentry.events()) == 2, within_s=20)
        assert (await bridge.http.get("/readyz")).json()["dependencies"] == {"sentry": True}
    assert sentry.issues() == [("A node of ATP does not answer", 2)]
    assert sorted(event["tags"]["instance"] for event in sentry.events()) == ["node-1:9000", "node-2:9000"]


async def test_an_alert_that_always_fires_is_a_check_in_each_time_and_never_an_event(
    collector: Sink, tmp_path: Path
) -> None:
    """Bugsink throws check-ins away, so a scripted sink reads these envelopes."""
    async with (
        bridging(bridge_settings(collector.sentry_dsn)) as bridge,
        alertmanager(tmp_path / "am", bridge.port) as manager,
    ):
        await manager.fire(alertname="AtpWatchdog", severity="none", check_in="atp-watchdog")
        await eventually(lambda: len(collector.check_ins()) >= 2, within_s=15)
        assert await bridge.metric('atp_bridge_check_ins_total{outcome="sent"}') >= 2
    check_in = collector.check_ins()[0]
    assert len(check_in.pop("check_in_id")) == 32
    assert check_in == {
        "monitor_slug": "atp-watchdog",
        "status": "ok",
        "release": "atp@0.1.0",
        "environment": "test",
        "monitor_config": {
            "schedule": {"type": "interval", "value": 5, "unit": "minute"},
            "checkin_margin": 5,
            "failure_issue_threshold": 1,
            "recovery_threshold": 1,
        },
    }
    assert collector.events() == []


async def test_a_check_in_that_resolves_tells_nothing(collector: Sink) -> None:
    async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
        answer = await bridge.post(alert("resolved", labels={"alertname": "AtpWatchdog", "check_in": "atp-watchdog"}))
        assert answer.status_code == 204
    assert collector.posts == []


@pytest.mark.parametrize("authorization", ["", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"bearer{TOKEN}"])
async def test_without_the_token_nothing_is_read(collector: Sink, authorization: str) -> None:
    async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
        answer = await bridge.http.post("/alerts", content=b"{", headers={"authorization": authorization})
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:atp:problem:unauthorized")
    assert answer.headers["content-type"] == "application/problem+json"
    assert collector.posts == []


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("sent", "status", "problem"),
    [
        ({"content": b"{", "headers": JSON}, 400, "bad-request"),
        ({"content": b'"\xff"', "headers": JSON}, 400, "bad-request"),
        ({"content": b"[" * 100_000, "headers": JSON}, 400, "bad-request"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported-media-type"),
        ({"content": b" " * 1_000_001, "headers": JSON}, 413, "payload-too-large"),
        ({"json": []}, 422, "invalid"),
        ({"json": group(version="3")}, 422, "invalid"),
        ({"json": group(alert(status="burning"))}, 422, "invalid"),
        ({"json": group(alert(fingerprint=""))}, 422, "invalid"),
        ({"json": group(alert(labels={"alertname": 1}))}, 422, "invalid"),
        ({"json": group(alert() | {"startsAt": "yesterday"})}, 422, "invalid"),
        ({"json": group(*[alert(labels={})] * 1001)}, 422, "invalid"),
    ],
)
async def test_what_is_no_webhook_is_refused_and_told_to_nobody(
    collector: Sink, sent: dict[str, Any], status: int, problem: str
) -> None:
    async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
        answer = await bridge.http.post("/alerts", **sent)
        assert await bridge.metric(f'atp_bridge_refused_notifications_total{{reason="{problem}"}}') == 1
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:atp:problem:{problem}")
    assert collector.posts == []


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/alerts", 405), ("POST", "/nowhere", 404)])
async def test_there_is_nothing_else_to_ask(collector: Sink, method: str, path: str, status: int) -> None:
    async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
        answer = await bridge.http.request(method, path)
        assert (await bridge.http.get("/livez")).status_code == 200
    assert (answer.status_code, len(answer.json()["request_id"])) == (status, 32)


async def test_the_same_news_from_many_at_once_is_told_once(sentry: Bugsink) -> None:
    async with bridging(bridge_settings(sentry.dsn)) as bridge:
        answers = await asyncio.gather(*(bridge.post() for _ in range(40)))
        assert {answer.status_code for answer in answers} == {204}
    assert sentry.issues() == [("A node of ATP does not answer", 1)]


async def test_what_another_bridge_has_told_within_the_hour_is_the_same_event(collector: Sink) -> None:
    """Sentry keeps one of an id."""
    for _ in range(2):
        async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
            await bridge.post()
    first, second = (event["event_id"] for event in collector.events())
    assert first == second or collector.events()[0]["timestamp"][:13] != collector.events()[1]["timestamp"][:13]


async def test_a_request_under_way_is_answered_before_the_end(collector: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.alerting.ingest.TOTAL_S", 0.5)
    collector.silent = True
    async with bridging(bridge_settings(collector.sentry_dsn)) as bridge:
        client = bridge.http
        posting = asyncio.create_task(client.post("/alerts", json=group()))
        await eventually(lambda: collector.asked == 1)
        bridge.stop.set()
        answer = await posting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_no_token_and_no_dsn_is_in_an_event_a_log_or_a_metric(
    sentry: Bugsink, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)

    async def explode(*_: object) -> None:
        raise RuntimeError(f"cannot post to {sentry.dsn} with Bearer {TOKEN}")

    async with bridging(bridge_settings(sentry.dsn)) as bridge:
        await bridge.post()
        await bridge.http.post(
            "/alerts", json=group(), headers={"authorization": f"Bearer {'-'.join(['of', 'somebody', 'else'])}"}
        )
        monkeypatch.setattr("service.alerting.bridge.Bridge.take", explode)
        answer = await bridge.post()
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:atp:problem:internal")
        await eventually(lambda: len(sentry.events()) == 2, within_s=10)
        metrics = (await bridge.http.get("/metrics")).text
        assert await bridge.metric('atp_unhandled_exceptions_total{component="http"}') == 1
    assert [title for title, _ in sentry.issues()] == [
        "A node of ATP does not answer",
        f"cannot post to http://…@{HOST}:{sentry.port}/1 with Bearer …",
    ]
    key = sentry.dsn.partition("://")[2].partition("@")[0]
    sought = [TOKEN, key, "-".join(["of", "somebody", "else"])]
    assert [word for word in sought if word in json.dumps(sentry.events())] == []
    assert [word for word in sought if word in metrics] == []
    assert '"request.unhandled"' in stdout.getvalue()
    assert [word for word in sought if word in stdout.getvalue()] == []


class BridgeProcess(ServiceProcess):
    """`atp alert-bridge` as a process of its own."""

    command = "alert-bridge"


async def test_the_command_reads_its_secrets_from_files_and_ends_in_order(sentry: Bugsink, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"{sentry.dsn}\n")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    files = {"sentry_dsn_file": tmp_path / "dsn", "bridge_token_file": tmp_path / "token"}
    with reserved_port() as port:
        process = BridgeProcess(StateFolder.open(tmp_path / "state"), "bridge", port, bridge_port=port, **files)
        await process.start()
        try:
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx2.AsyncClient(verify=False, base_url=f"http://{HOST}:{port}", headers=headers) as http:
                assert (await http.post("/alerts", json=group())).status_code == 204
        finally:
            assert await process.terminate() == 0
    assert sentry.issues() == [("A node of ATP does not answer", 1)]
    assert TOKEN not in process.log()
    said = [json.loads(line)["event"] for line in process.log().splitlines()]
    assert said == ["bridge.started", "alert.told", "bridge.draining", "bridge.stopped"]


def test_the_command_says_what_it_needs() -> None:
    done = atp("alert-bridge", sentry_dsn="", bridge_token="")
    assert (done.returncode, done.stderr) == (
        1,
        "atp: SENTRY_DSN: the alert bridge needs it, or its file in SENTRY_DSN_FILE\n"
        "atp: BRIDGE_TOKEN: the alert bridge needs it, or its file in BRIDGE_TOKEN_FILE\n",
    )


async def test_doctor_tells_a_dsn_that_sentry_knows_from_one_it_does_not(sentry: Bugsink) -> None:
    assert await doctor.sentry(load(sentry_dsn=sentry.dsn)) == f"{HOST}:{sentry.port} answers"
    with pytest.raises(doctor.Fault, match="refuses the DSN"):
        await doctor.sentry(load(sentry_dsn=f"http://{'0' * 32}@{HOST}:{sentry.port}/1"))
    assert sentry.events() == []
