"""What a PromQL expression reads: enough of its grammar to take the names of series and labels out, no more."""

import re
from collections.abc import Iterator

TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
      | (?P<number>0x[0-9a-fA-F]+|(?:\d+(?:ms|[smhdwy]))+|\d*\.?\d+(?:[eE][+-]?\d+)?)
      | (?P<name>[a-zA-Z_:$][a-zA-Z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^()<>={},\[\]@:])""",
    re.VERBOSE,
)
AGGREGATIONS = frozenset(
    [
        "sum",
        "min",
        "max",
        "avg",
        "group",
        "stddev",
        "stdvar",
        "count",
        "count_values",
        "bottomk",
        "topk",
        "quantile",
        "limitk",
        "limit_ratio",
    ]
)
# Before a list of labels in parentheses.
GROUPING = frozenset(["by", "without", "on", "ignoring", "group_left", "group_right"])
WORDS = (
    AGGREGATIONS
    | GROUPING
    | frozenset(["and", "or", "unless", "atan2", "offset", "bool", "start", "end", "inf", "nan"])
)
Tokens = list[tuple[str, str]]


def tokens(expression: str) -> Tokens:
    """Kind and text of each; raises ValueError at what is none."""
    found, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL: {expression[at : at + 20]!r}")
        at = match.end()
        if match.lastgroup != "space":
            found.append((match.lastgroup or "", match.group()))
    return found


def series(expression: str) -> dict[str, set[str]]:
    """Each metric that is read, with the labels that its matchers name; `grouped` has those of `by` and `on`."""
    return {name: labels for name, labels, _ in selectors(expression)}


def selectors(expression: str) -> Iterator[tuple[str, set[str], tuple[str, ...]]]:
    """Metric, labels of its matchers, and the functions and aggregations around it, the innermost last.

    A metric that is read twice comes twice; `series` keeps the union of its labels.
    """
    found, stack = tokens(expression), [""]
    merged: dict[str, set[str]] = {}
    at, opener = 0, ""
    while at < len(found):
        kind, text = found[at]
        following = found[at + 1][1] if at + 1 < len(found) else ""
        if kind == "name" and text.lower() in GROUPING and following == "(":
            at = closing(found, at + 1)
            # `sum by (x) (…)`: the parenthesis that comes is still the aggregation's.
            at += 1
            continue
        if text == "[":  # a range: durations, or a dashboard's variable
            at = next(end for end in range(at, len(found)) if found[end][1] == "]") + 1
            continue
        if text == "(":
            stack.append(opener)
            opener = ""
        elif text == ")":
            stack.pop()
            opener = ""
        elif text == "{" or (kind == "name" and text.lower() not in WORDS and following != "("):
            name, labels, at = selector(found, at)
            merged.setdefault(name, set()).update(labels)
            yield name, merged[name], tuple(word for word in stack if word)
            continue
        elif kind == "name":
            opener = text.lower() if text.lower() in AGGREGATIONS or following == "(" else ""
        elif kind == "sign":
            opener = ""
        at += 1


def grouped(expression: str) -> set[str]:
    """The labels that are named in `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`."""
    found, labels = tokens(expression), set()
    for at, (kind, text) in enumerate(found[:-1]):
        if kind == "name" and text.lower() in GROUPING and found[at + 1][1] == "(":
            labels |= {word for kind, word in found[at + 1 : closing(found, at + 1)] if kind == "name"}
    return labels


def closing(found: Tokens, opening: int) -> int:
    """Where the parenthesis that opens there closes; lists of labels have none inside."""
    return next(at for at in range(opening, len(found)) if found[at][1] == ")")


def selector(found: Tokens, at: int) -> tuple[str, set[str], int]:
    """The metric and the labels of its matchers, and where it goes on; `{__name__="x"}` is x."""
    name, labels = "", set()
    if found[at][0] == "name":
        name, at = found[at][1], at + 1
    if at < len(found) and found[at][1] == "{":
        while found[at][1] != "}":
            kind, text = found[at]
            if kind == "name" and text == "__name__":
                name = found[at + 2][1][1:-1]
            elif kind == "name":
                labels.add(text)
            at += 1
        at += 1
    return name, labels, at


def base(metric: str) -> str:
    """The histogram or counter that a series belongs to: without _bucket, _count, _sum."""
    for suffix in ("_bucket", "_count", "_sum"):
        if metric.endswith(suffix):
            return metric.removesuffix(suffix)
    return metric
