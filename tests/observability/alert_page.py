"""`docs/alerts.md`, made from the rules: `python -m tests.observability.alert_page` writes it."""

from pathlib import Path

from tests.observability.rules import Rule, alerts

PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"
HEAD = """# Alerts

Made from `observability/prometheus/rules/` by `python -m tests.observability.alert_page`; above each rule stands why
its threshold. Each is tried with promtool in `observability/prometheus/tests/`: not yet, fires, resolves, must not
fire.

## How a page travels

1. Prometheus evaluates the rules every 15 s and sends what fires to Alertmanager.
2. Alertmanager groups (10 s for a page, a minute for a ticket), leaves out what follows from something larger
   (`inhibit_rules`), and posts to the alert bridge with a bearer token.
3. The bridge makes a Sentry event of the group, with a link to the runbook and the dashboard; who is on call hears it
   from Sentry. A page is repeated hourly, a ticket daily, until it is resolved, which is told too.
4. `AtpWatchdog` and `AtpBackupFresh` fire while all is well. The bridge makes check-ins of them, a minute apart, and
   Sentry reports the one that stays away: so the way itself is watched, by somebody outside it.

`page`: somebody gets up. `ticket`: in working hours. `none`: a check-in.

## By name

| alert | severity | when | for | runbook |
|---|---|---|---|---|
"""


def as_markdown() -> str:
    return HEAD + "".join(row(alert) for alert in sorted(alerts(), key=lambda alert: alert.name))


def row(alert: Rule) -> str:
    when = " ".join(alert.expression.split()).replace("|", "\\|")
    runbook = f"[runbook](../observability/prometheus/runbooks/{alert.name}.md)"
    return f"| {alert.name} | {alert.labels['severity']} | `{when}` | {alert.lasting} | {runbook} |\n"


if __name__ == "__main__":
    PAGE.write_text(as_markdown())
