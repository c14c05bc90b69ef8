"""What the texts of exceptions lose on their way to Sentry."""

from typing import Any

import pytest

from service.settings import load
from service.telemetry.logging import renderers
from service.telemetry.scrubbing import scrub, stack_of, text_of

KEY = "_".join(["atp_live", "abcdefgh", "0123456789abcdefghij"])


def sent(text: str, module: str | None = None, kind: str = "Boom") -> Any:
    event = {"exception": {"values": [{"type": kind, "module": module, "value": text}]}}
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
        ("no user 'alice'", "no user '…'"),
        ("no mailbox of ana.lima+x@mail.example.org here", "no mailbox of …@… here"),
        ("host=db password=hunter2 dbname=atp", "host=db password=… dbname=atp"),
        ('{"api_key": "abc", "n": 1}', '{"…": …, "…": 1}'),
        ("PGPASSWORD=hunter2", "PGPASSWORD=…"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln expired", "token eyJ… expired"),
        ("duplicate key\nDETAIL:  Key (name)=(Ana Lima) already exists.", "duplicate key\nDETAIL: …"),
        ("1 error\n  [type=int, input_value=Ana Lima, input_type=str]", "1 error\n  [type=int, input_value=…"),
        ("can't start new thread; the node's limit", "can't start new thread; the node's limit"),
        ("x" * 10_000, "x" * 300),
    ],
)
def test_secrets_and_quoted_data_are_left_out(text: str, left: str) -> None:
    assert sent(text) == left


def test_of_what_the_interpreter_quotes_the_names_of_the_code_stay() -> None:
    text = "'NoneType' object has no attribute 'items'"
    assert (sent(text, kind="AttributeError"), sent(text, kind="ValueError")) == (
        text,
        "'…' object has no attribute '…'",
    )


@pytest.mark.parametrize("module", ["pydantic_core._pydantic_core", "psycopg.errors", "redis.exceptions"])
def test_of_errors_that_quote_what_they_were_given_nothing_is_sent_but_their_kind(module: str) -> None:
    assert sent("input_value=my secret plan", module) == "(its text may quote data: see the log of this moment)"


def test_a_message_has_no_exception_to_clean() -> None:
    assert scrub({"message": "Task failed: The model server failed"}) == {
        "message": "Task failed: The model server failed"
    }


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - with its traceback
        return caught


def test_a_line_of_the_log_has_an_exceptions_text_without_its_data() -> None:
    def logged(error: BaseException) -> str:
        event: Any = {"event": "request.unhandled", "exc_info": error}
        for process in renderers(load(log_format="json")):
            event = process(None, "error", event)
        return str(event)

    line = logged(raised(ValueError(f"no plan 'to rob a bank', no key {KEY}")))
    assert "no plan '…', no key atp_live_…" in line
    assert "rob" not in line
    nested = logged(raised(ExceptionGroup("both", [raised(ValueError("no 'to rob a bank'"))])))
    assert "no '…'" in nested
    assert "rob" not in nested
    noted = ValueError("no plan")
    noted.add_note("of 'to rob a bank'")
    assert "of '…'" in logged(raised(noted))
    line_of_data = SyntaxError("bad", ("agents.json", 1, 1, "to rob a bank"))
    assert "rob" not in logged(line_of_data)


def test_a_stack_has_the_frames_and_the_cleaned_texts_of_what_led_to_it() -> None:
    text = " ".join(["no plan", repr("to rob a bank")])  # joined, for the frames show the lines of the code
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ValueError(text) from error
    except ValueError as error:
        stack = stack_of(error)
    assert stack.startswith("Traceback (most recent call last):\n")
    assert stack.index("KeyError: ") < stack.index("ValueError: no plan '…'")
    assert "raise ValueError(text) from error" in stack
    assert "rob" not in stack


def test_of_a_group_the_members_are_in_the_stack() -> None:
    assert "KeyError: '…'" in stack_of(ExceptionGroup("both", [raised(KeyError("to rob"))]))


def test_a_stack_has_an_end_whatever_led_to_it() -> None:
    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise ValueError("x" * 1_000_000)

    with pytest.raises(ValueError, match="x") as caught:
        deep(200)
    caught.value.__cause__ = caught.value
    assert len(stack_of(caught.value)) <= 8000
    assert stack_of(caught.value).endswith(f"ValueError: {'x' * 300}\n")
    assert len(text_of(caught.value)) == 300


def test_an_exception_whose_text_fails_is_told_of_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text either")

    assert text_of(Mute()) == "(it has no text)"
