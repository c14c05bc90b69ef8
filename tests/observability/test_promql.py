import pytest

from tests.observability.promql import base, grouped, selectors, series


@pytest.mark.parametrize(
    ("expression", "read"),
    [
        ("up", {"up": set()}),
        ('up{job="atp",instance!~"a{2}|b"} == 0', {"up": {"job", "instance"}}),
        ('sum by (le) (rate(x_bucket{le="0.5"}[5m])) / on () group_left () y', {"x_bucket": {"le"}, "y": set()}),
        ("a:b:rate5m[1h:5m] offset 1d unless c or vector(1)", {"a:b:rate5m": set(), "c": set()}),
        ('{__name__="up",job="atp"} + up{instance="a"}', {"up": {"job", "instance"}}),
        ("max(x{a='by (b)'}) > bool 3e2 # y", {"x": {"a"}}),
        ("rate(x[$__rate_interval])", {"x": set()}),
        ('label_replace(x, "a", "$1", "b", "(.*)")', {"x": set()}),
    ],
)
def test_series_takes_out_metrics_and_the_labels_of_their_matchers(expression: str, read: dict[str, set[str]]) -> None:
    assert series(expression) == read


def test_selectors_tell_what_stands_around_a_metric() -> None:
    found = [(name, around) for name, _, around in selectors("max by (a) (x) + sum(rate(y[5m])) - max(-z) + (w)")]
    assert found == [("x", ("max",)), ("y", ("sum", "rate")), ("z", ("max",)), ("w", ())]


def test_grouped_tells_the_labels_of_by_and_on() -> None:
    assert grouped('sum by (a, b) (x{c="1"}) * on (d) group_left (e) y') == {"a", "b", "d", "e"}


def test_what_is_not_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="not PromQL"):
        series("up; drop")


def test_the_parts_of_a_histogram_have_one_base() -> None:
    assert [base(name) for name in ("x_seconds_bucket", "x_seconds_count", "x_total")] == [
        "x_seconds",
        "x_seconds",
        "x_total",
    ]
