"""The comparisons of the proof, by themselves: each finds a wrong value, a missing series and one too many."""

import pytest

from tests.observability.queries import Seen
from tests.observability.reading import Among, counted_whole, not_among, outside, uncounted, unlike

OK, BAD, NEW = (("status", "200"),), (("status", "502"),), (("status", "404"),)


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ({OK: [1, 8], BAD: [2]}, True),
        ({OK: [8], BAD: [2], NEW: [0]}, False),
        ({OK: [8, 9], BAD: [2]}, False),
        ({OK: [16], BAD: [4]}, False),
        ({OK: [8]}, False),
        ({OK: [8], BAD: []}, False),
        ({OK: [8], BAD: [2], NEW: [1]}, False),
        ({(): [10]}, False),
        ({}, False),
    ],
)
def test_exact_values_are_compared_by_label_set_and_at_the_end(found: Seen, right: bool) -> None:
    assert (unlike({OK: (8, 20), BAD: (2, 5)}, found, 0) == {}) is right


def test_a_counter_at_0_is_as_good_as_none_and_any_other_is_not() -> None:
    expected = {OK: (8.0, 20.0), BAD: (0.0, 5.0)}
    assert uncounted(expected, {OK: [8], NEW: [0, 0]}, 0) == {}
    assert uncounted(expected, {OK: [8], NEW: [0, 1]}, 0) != {}
    assert uncounted(expected, {OK: [20]}, 1) != {}


def test_each_phase_has_its_own_value() -> None:
    assert unlike({(): (8, 20)}, {(): [20]}, 1) == {}
    assert unlike({(): (8, 20)}, {(): [20]}, 0) == {"found": {(): 20}, "expected": {(): 8}}


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ({OK: [99, 0.1], BAD: [0.9]}, True),
        ({OK: [0.1], BAD: [1.1]}, False),
        ({OK: [0.05], BAD: [0.9]}, False),
        ({OK: [0.1]}, False),
        ({OK: [0.1], BAD: [0.9], NEW: [0.5]}, False),
    ],
)
def test_bounds_are_of_every_series_and_of_no_other(found: Seen, right: bool) -> None:
    assert (outside({OK: (0.1, 1), BAD: (0.1, 1)}, found) == {}) is right


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ({OK: [1], BAD: [2]}, True),
        ({OK: [1], BAD: [2], NEW: [3]}, True),
        ({OK: [1]}, False),
        ({OK: [1], BAD: [11]}, False),
        ({OK: [1], BAD: [2], (("route", "/"),): [3]}, False),
        ({OK: [1], BAD: [2], (): [3]}, False),
    ],
)
def test_among_others_means_these_and_by_that_label(found: Seen, right: bool) -> None:
    assert (not_among(Among("status", {"200", "502"}, 0, 10), found) == {}) is right


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('sum(rate(a_total{x=~"b|c"}[$__rate_interval]))', 'sum(a_total{x=~"b|c"})'),
        ("60 * sum by (x) (increase(a_total{}[5m])) > 0", "60 * sum by (x) (a_total{}) > 0"),
        ("sum(rate(a{}[1m])) / sum(rate(b{}[1m]))", "sum(a{}) / sum(b{})"),
        ("max(a_rate{})", None),
    ],
)
def test_counters_stand_in_the_place_of_their_rates(text: str, whole: str | None) -> None:
    assert counted_whole(text) == whole
