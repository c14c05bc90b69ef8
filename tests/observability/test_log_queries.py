"""From a log line to its trace, in every query of lines that Grafana is given."""

import json
import re

from service.telemetry.logging import RequestLine
from tests.observability.logql import datasource, of_lines, queries

QUERIES = dict(queries())


def test_panels_links_and_spans_ask_for_lines() -> None:
    assert {where for where, text in QUERIES.items() if of_lines(text)} >= {
        "atp-http-slo / Errors in the log / A",
        "atp-on-call / Error lines / A",
        "atp-on-call / Log lines / All lines",
        "atp-overview / Requests a minute / Logs of errors",
        "atp-tempo / from a span",
    }


def test_every_query_of_lines_makes_labels_of_their_fields() -> None:
    assert [where for where, text in QUERIES.items() if of_lines(text) and "} | json" not in text] == []


def test_the_trace_of_a_line_is_found_among_its_labels_whatever_of_it_is_shown() -> None:
    """As Grafana does it: the first label whose name the expression finds."""
    (field,) = datasource("atp-loki")["derivedFields"]
    line = json.loads(RequestLine("01JD", 0x4BF92F35, "GET", "/healthz", 200, 0.1)())
    names = ["job", "level_extracted", "parent_trace_id", "trace_id_extracted", *line]
    found = [name for name in names if re.search(field["matcherRegex"], name)]
    assert (field["matcherType"], found) == ("label", ["trace_id"])
    assert (field["datasourceUid"], field["url"]) == ("atp-tempo", "${__value.raw}")
