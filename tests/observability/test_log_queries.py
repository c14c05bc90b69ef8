"""Every LogQL query that Grafana is given: it parses, and from each of its lines a way leads to the trace."""

import json
import re

import pytest

from service.telemetry.logging import RequestLine
from tests.observability.logql import datasource, faults, of_lines, queries

QUERIES = dict(queries())


def test_panels_links_and_spans_ask_for_lines() -> None:
    assert {where for where, text in QUERIES.items() if of_lines(text)} >= {
        "atp-http-slo / Errors in the log / A",
        "atp-on-call / Error lines / A",
        "atp-on-call / Log lines / All lines",
        "atp-overview / Requests a minute / Logs of errors",
        "atp-tempo / from a span",
    }


def test_the_grammar_of_grafana_finds_no_error_in_any_query() -> None:
    assert {where: fault for where, fault in zip(QUERIES, faults([*QUERIES.values()]), strict=True) if fault} == {}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ('{job="atp"} | json | line_format', ""),
        ('{job="atp"} | jsn', ""),  # a label that is compared with nothing
        ('{job="atp", level=error}', "error}"),
        ('sum by (level) (rate({job="atp"} [$__auto])', ""),
        ('{job="atp"} | json | level="error" trace_id="x"', 'trace_id="x"'),
    ],
)
def test_the_grammar_of_grafana_would_find_an_error(query: str, fault: str) -> None:
    assert faults([query]) == [fault]


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
