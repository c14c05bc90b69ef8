"""What a query showed, held against what it must show: pure functions, tested by themselves in `test_reading.py`."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.observability.expected import Exact, Labels
from tests.observability.queries import Seen

# By a series' labels, the least and the most that it may show at the end of any phase.
Bounds = Mapping[Labels, tuple[float, float]]


class Among(NamedTuple):
    """Series by one label: these and maybe others, each within the bounds."""

    label: str
    values: set[str]
    least: float
    most: float


RATE = re.compile(r"\b(?:rate|increase)\((?P<counter>\w+\{[^}]*\})\[[^\]]*\]\)")


def counted_whole(text: str) -> str | None:
    """The query with its counters as they stand in place of their rates: what was counted since the start, which the
    workload knows to the last one. None for a query without rates."""
    whole = RATE.sub(r"\g<counter>", text)
    return whole if whole != text else None


def last(found: Seen) -> dict[Labels, float]:
    """Of each series that shows anything."""
    return {labels: values[-1] for labels, values in found.items() if values}


def unlike(expected: Exact, found: Seen, number: int) -> dict[str, object]:
    """What differs in label sets or last values; empty where nothing does."""
    shown, right = last(found), {labels: values[number] for labels, values in expected.items()}
    return {} if shown == pytest.approx(right, rel=0.005) else {"found": shown, "expected": right}


def uncounted(expected: Exact, found: Seen, number: int) -> dict[str, object]:
    """The same of counters, of which one at 0 is as good as none."""
    counted = {labels: values for labels, values in expected.items() if values[number]}
    return unlike(counted, {labels: values for labels, values in found.items() if values and values[-1]}, number)


def outside(bounds: Bounds, found: Seen) -> dict[str, object]:
    """The label sets that differ, and the last values that are out of bounds; empty where there are none."""
    shown = last(found)
    differ = bounds.keys() ^ shown.keys()
    beyond = {of: value for of, value in shown.items() if of in bounds and not bounds[of][0] <= value <= bounds[of][1]}
    return {"differ": differ, "beyond": beyond} if differ or beyond else {}


def not_among(among: Among, found: Seen) -> dict[str, object]:
    """The values of the label that are missing, series by other labels, and last values out of bounds."""
    shown = last(found)
    strange = {labels for labels in shown if [label for label, _ in labels] != [among.label]}
    missing = among.values - {value for labels in shown for _, value in labels}
    beyond = {labels: value for labels, value in shown.items() if not among.least <= value <= among.most}
    found_wrong = {"strange": strange, "missing": missing, "beyond": beyond}
    return {kind: what for kind, what in found_wrong.items() if what}
