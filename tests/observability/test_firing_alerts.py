"""The table of firing alerts: what each is about, and its runbook."""

import re

import pytest
import yaml

from tests.observability.boards import BOARDS, Json, panels
from tests.observability.rules import PROMETHEUS, groups_of_cases

# The other columns, what all alerts have, and what tells the rules of one name apart.
ASIDE = {"severity", "instance", "job", "dashboard", "check_in", "kind", "window"}


def table(uid: str) -> Json:
    return next(panel for panel in panels(BOARDS[uid]) if panel["title"] == "Firing alerts")


@pytest.mark.parametrize("uid", ["atp-overview", "atp-on-call"])
def test_it_tells_what_each_alert_is_about(uid: str) -> None:
    expression = table(uid)["targets"][0]["expr"]
    joined = re.findall(r'"(\w+)"', re.search(r'label_join\(.*?"about", " ", (.*?)\), "about"', expression)[1])
    cases = [case for group in groups_of_cases() for case in group.get("alert_rule_test", [])]
    fired = {label for case in cases for alert in case["exp_alerts"] for label in alert["exp_labels"]}
    assert set(joined) == fired - ASIDE
    assert {"slo", "dependency", "task", "queue", "policy"} <= set(joined)


@pytest.mark.parametrize("uid", ["atp-overview", "atp-on-call"])
def test_a_click_opens_the_runbook_where_the_alerts_own_links_lead(uid: str) -> None:
    (link,) = table(uid)["fieldConfig"]["defaults"]["links"]
    assert link["url"] == "${runbooks}/${__data.fields.Alert}.md"
    variable = next(v for v in BOARDS[uid]["templating"]["list"] if v["name"] == "runbooks")
    given = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["external_labels"]["runbooks"]
    assert variable["query"] == variable["current"]["value"] == given == "http://localhost:8000/runbooks"
