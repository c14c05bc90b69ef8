"""What may be said of an exception, in logs, traces and Sentry: where it broke, not with what.

The SDKs are told to send no bodies and no local variables. What is left is the text of exceptions, and those may quote
what they were given: a prompt, a row, a URL with its password.
"""

import re
from collections.abc import Iterator
from itertools import islice
from traceback import format_tb
from typing import Any

# Their texts are made of what they were given (psycopg's DETAIL, pydantic's input_value).
QUOTING = ("pydantic", "psycopg", "redis", "aiohttp", "openai", "procrastinate")
NOT_SENT = "(its text may quote data: see the log of this moment)"
TEXT_CHARS, LOOKED_AT_CHARS = 300, 2000
# Of a stack: the innermost frames of each exception, so many exceptions, so much in all.
FRAMES, EXCEPTIONS, STACK_CHARS = 20, 5, 8000
SECRETS = (
    (re.compile(r"\batp_live_\w+"), "atp_live_…"),
    (re.compile(r"\b(sk-|whsec_)[\w+/=-]+"), r"\1…"),
    (re.compile(r"\beyJ[\w-]+\.[\w.-]+"), "eyJ…"),
    (re.compile(r"(?i)\bbearer\s+\S+"), "Bearer …"),
    (re.compile(r"://[^/\s@]+@"), "://…@"),
    (re.compile(r"(?i)(\b\w*(?:passw(?:or)?d|pwd|secret|token|api[-_]?key))(['\"]?\s*[=:]\s*)[^\s,;&]+"), r"\1\2…"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "…@…"),
    # PostgreSQL's lines below the first, and what pydantic was given.
    (re.compile(r"\b(DETAIL|CONTEXT|QUERY|STATEMENT|LINE \d+):.*", re.DOTALL), r"\1: …"),
    (re.compile(r"\binput_value=.*", re.DOTALL), "input_value=…"),
)
# Any quotation may be of the data. An apostrophe inside a word opens none; one that is not closed goes on to the end.
QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))""", re.DOTALL)
# The interpreter's own, which quote names of the code: "'NoneType' object has no attribute 'items'".
OF_CODE = frozenset(("AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "TypeError"))
NAME = re.compile(r"[A-Za-z_][\w.]{0,39}")


def scrub(event: Any) -> Any:
    """The event itself, with the texts of its exceptions cleaned."""
    for exception in event.get("exception", {}).get("values", []):
        kind, module = exception.get("type") or "", exception.get("module") or ""
        exception["value"] = told(kind, module, exception.get("value") or "")
    return event


def told(kind: str, module: str, text: str) -> str:
    """The text of an exception of the class `kind` of `module`, as it may leave the node."""
    return NOT_SENT if module.split(".")[0].startswith(QUOTING) else clean(text, kind)


def clean(text: str, kind: str = "") -> str:
    """Of at most TEXT_CHARS, without secrets, addresses and quotations. `kind`: the class of an exception."""
    text = text[:LOOKED_AT_CHARS]
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return QUOTED.sub(name_or_nothing if kind in OF_CODE else nothing, text)[:TEXT_CHARS]


def nothing(quotation: re.Match[str]) -> str:
    return f"{quotation[0][0]}…{quotation[0][0]}"


def name_or_nothing(quotation: re.Match[str]) -> str:
    return quotation[0] if NAME.fullmatch(quotation[0].strip("'\"")) else nothing(quotation)


def class_of(error: BaseException) -> str:
    """With its module, unless it is the interpreter's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """What its class says of itself, as it may leave the node; an exception may fail to."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its own fault must not hide it
        text = "(it has no text)"
    return told(type(error).__name__, type(error).__module__, text)


def stack_of(error: BaseException) -> str:
    """As the interpreter prints it, with the texts cleaned: at most STACK_CHARS, the end of it."""
    first = islice(family(error), EXCEPTIONS)
    stacks = [frames(one) + ": ".join(filter(None, (class_of(one), text_of(one)))) + "\n" for one in first]
    return "\nfollowed by\n\n".join(reversed(stacks))[-STACK_CHARS:]


def family(error: BaseException) -> Iterator[BaseException]:
    """It, the members of a group, and what it came from. A cause may be its own, so this may have no end."""
    yield error
    came_from = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*getattr(error, "exceptions", ()), came_from):
        if other is not None:
            yield from family(other)


def frames(error: BaseException) -> str:
    """Lines of the code, none of the values."""
    lines = format_tb(error.__traceback__, -FRAMES)
    return "".join(["Traceback (most recent call last):\n", *lines] if lines else [])
