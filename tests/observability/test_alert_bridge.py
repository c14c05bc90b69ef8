"""The alert bridge and a real Sentry-compatible server: what on-call reads, once, and never a loss."""

from tests.observability.bridges import alert, bridge_settings, bridging
from tests.observability.bugsink import Bugsink


async def test_an_alert_is_one_issue_firing_repeated_and_resolved(sentry: Bugsink) -> None:
    async with bridging(bridge_settings(sentry.dsn)) as bridge:
        for status in ("firing", "firing", "resolved", "resolved"):
            answer = await bridge.post(alert(status))
            assert (answer.status_code, answer.text) == (204, "")
        assert await bridge.alerts() == {"sent": 2.0, "failed": 0.0, "refused": 0.0}
    assert sentry.issues() == [("A node of ATP does not answer", 2)]
