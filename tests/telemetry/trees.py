"""Traces as text, to be compared with literal ones: a line for each span, children indented, by their beginnings."""

from typing import Any

from tests.telemetry.sinks import Sink


def trees(spans: list[Any]) -> list[str]:
    """Of all traces, the oldest first."""
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_span_id not in ids]
    return [line for root in in_order(roots) for line in lines(root, spans, "")]


def lines(span: Any, spans: list[Any], indent: str) -> list[str]:
    children = in_order([other for other in spans if other.parent_span_id == span.span_id])
    below = [line for child in children for line in lines(child, spans, indent + "  ")]
    return [f"{indent}{span.name}{outcome(span)}", *below]


def outcome(span: Any) -> str:
    return " !" if span.status.code == span.status.STATUS_CODE_ERROR else ""


def in_order(spans: list[Any]) -> list[Any]:
    return sorted(spans, key=lambda span: span.start_time_unix_nano)


def named(collector: Sink, name: str) -> Any:
    """The only span of this name."""
    (span,) = [span for span in collector.spans() if span.name == name]
    return span


def attributes(span: Any) -> dict[str, Any]:
    return {attribute.key: value_of(attribute.value) for attribute in span.attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind)
