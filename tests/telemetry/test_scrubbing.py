"""What the texts of exceptions lose on their way to Sentry."""

from typing import Any

import pytest

from service.settings import load
from service.telemetry.logging import renderers
from service.telemetry.scrubbing import scrub

KEY = "_".join(["atp_live", "abcdefgh", "0123456789abcdefghij"])


def sent(text: str, module: str | None = None) -> Any:
    event = {"exception": {"values": [{"type": "Boom", "module": module, "value": text}]}}
    return scrub(event)["exception"]["values"][0]["value"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"no such key: {KEY}", "no such key: atp_live_…"),
        ("cannot reach redis://:hunter2@cache:6379/0", "cannot reach redis://…@cache:6379/0"),
        ("header Bearer abc.def was refused", "header Bearer … was refused"),
        ("sk-proj-abc123 is over quota", "sk-… is over quota"),
        ("invalid literal for int() with base 10: 'my secret plan'", "invalid literal for int() with base 10: '…'"),
        ('Expecting "a plan, cut short', 'Expecting "…"'),
        ("'NoneType' object has no attribute 'items'", "'NoneType' object has no attribute 'items'"),
        ("can't start new thread; the node's limit", "can't start new thread; the node's limit"),
        ("x" * 10_000, "x" * 300),
    ],
)
def test_secrets_and_quoted_data_are_left_out_and_names_stay(text: str, left: str) -> None:
    assert sent(text) == left


@pytest.mark.parametrize("module", ["pydantic_core._pydantic_core", "psycopg.errors", "redis.exceptions"])
def test_of_errors_that_quote_what_they_were_given_nothing_is_sent_but_their_kind(module: str) -> None:
    assert sent("input_value=my secret plan", module) == "(its text may quote data: see the log of this moment)"


def test_a_message_has_no_exception_to_clean() -> None:
    assert scrub({"message": "Task failed: The model server failed"}) == {
        "message": "Task failed: The model server failed"
    }


def test_a_line_of_the_log_has_an_exceptions_text_without_its_data() -> None:
    def logged(error: BaseException) -> str:
        event: Any = {"event": "request.unhandled", "exc_info": error}
        for process in renderers(load(log_format="json")):
            event = process(None, "error", event)
        return str(event)

    def raised(error: BaseException) -> BaseException:
        try:
            raise error
        except BaseException as caught:  # noqa: BLE001 - with its traceback
            return caught

    line = logged(raised(ValueError(f"no plan 'to rob a bank', no key {KEY}")))
    assert "no plan '…', no key atp_live_…" in line
    assert "rob" not in line
    nested = logged(raised(ExceptionGroup("both", [raised(ValueError("no 'to rob a bank'"))])))
    assert "no '…'" in nested
    assert "rob" not in nested
