"""What may be said of an exception, in the log and on its way to Sentry: where it broke, not with what.

The SDK is told to send no bodies and no local variables. What is left is the text of exceptions, and those may quote
what they were given: a prompt, a row, a URL with its password.
"""

import re
from typing import Any

# Their texts are made of what they were given (psycopg's DETAIL, pydantic's input_value).
QUOTING = ("pydantic", "psycopg", "redis", "aiohttp", "openai", "procrastinate")
NOT_SENT = "(its text may quote data: see the log of this moment)"
TEXT_CHARS, LOOKED_AT_CHARS = 300, 2000
SECRETS = (
    (re.compile(r"\batp_live_\w+"), "atp_live_…"),
    (re.compile(r"\b(sk-|whsec_)[\w+/=-]+"), r"\1…"),
    (re.compile(r"(?i)\bbearer\s+\S+"), "Bearer …"),
    (re.compile(r"://[^/\s@]+@"), "://…@"),
)
# A name, as in "'NoneType' object has no attribute 'items'", is of the code; any other quotation may be of the data.
# An apostrophe inside a word opens none; one that is not closed goes on to the end.
QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))""", re.DOTALL)
NAME = re.compile(r"[A-Za-z_][\w.]{0,39}")


def scrub(event: Any) -> Any:
    """The event itself, with the texts of its exceptions cleaned."""
    for exception in event.get("exception", {}).get("values", []):
        quotes = (exception.get("module") or "").split(".")[0].startswith(QUOTING)
        exception["value"] = NOT_SENT if quotes else clean(exception.get("value") or "")
    return event


def clean(text: str) -> str:
    text = text[:LOOKED_AT_CHARS]
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return QUOTED.sub(unquoted, text)[:TEXT_CHARS]


def unquoted(quotation: re.Match[str]) -> str:
    mark, inside = quotation[0][0], quotation[0].strip("'\"")
    return quotation[0] if NAME.fullmatch(inside) else f"{mark}…{mark}"
