"""The one tree of errors. Each class is a stable problem type with its HTTP status and a message safe to show.

Driver exceptions become these in `state/` and `db/` only; `http/problems.py` turns them into RFC 9457 answers.
"""

import math
from typing import Any, ClassVar

# Before the code of an error it is the `type` of its problem document, for ever.
PROBLEM = "urn:atp:problem:"


class AtpError(Exception):
    """Something went wrong that ATP foresaw. `detail` is shown to the caller: no secret, no address, no stack."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra


class SettingsError(AtpError):
    """The configuration is wrong; the message has one line per fault. Stops the start, never reaches a caller."""


class BadRequest(AtpError):
    status, code, title = 400, "bad-request", "The request cannot be understood"


class Unauthorized(AtpError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class KeyEnded(Unauthorized):
    """The key came to its end while its request was under way; `reason` is revoked, expired or inactive_user."""

    def __init__(self, reason: str) -> None:
        super().__init__("The API key came to its end while this was under way.", reason=reason)


class Forbidden(AtpError):
    status, code, title = 403, "forbidden", "This key may not do that"


class Blocked(Forbidden):
    """An administrator keeps this key, user or address out for a time; `retry_after_s`: how long it still lasts."""

    code, title = "blocked", "This caller is kept out for a time"


class NotFound(AtpError):
    status, code, title = 404, "not-found", "There is no such thing"


class MethodNotAllowed(AtpError):
    status, code, title = 405, "method-not-allowed", "That method is not allowed here"


class RequestTimeout(AtpError):
    status, code, title = 408, "request-timeout", "The request body came too slowly"


class Conflict(AtpError):
    status, code, title = 409, "conflict", "That does not go with what is there"


class PayloadTooLarge(AtpError):
    status, code, title = 413, "payload-too-large", "The request body is too large"


class UnsupportedMediaType(AtpError):
    status, code, title = 415, "unsupported-media-type", "The body must be application/json"


class Invalid(AtpError):
    """A well-formed body that breaks the schema; `extra["errors"]` lists `{field, message}`."""

    status, code, title = 422, "invalid", "The request does not fit the schema"


class TooMany(AtpError):
    """More at the same time than one client may have."""

    status, code, title = 429, "too-many", "Too many at the same time"


class RateLimited(AtpError):
    """More within a time than this caller may ask for; without `retry_after_s` so much at once never fits.

    `extra` has `policy`, `limit`, `window_s` and, in whole seconds, `retry_after_s`.
    """

    status, code, title = 429, "rate-limited", "Too many requests"

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None, **extra: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)
        self.extra["retry_after_s"] = None if retry_after_s is None else math.ceil(retry_after_s)


class Unavailable(AtpError):
    """A dependency is away; worth trying again."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, detail: str = "", *, retry_after_s: float | None = 1.0, **extra: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)


class DatabaseUnavailable(Unavailable):
    """PostgreSQL refused, timed out, or has no connection free."""


class DatabaseRejected(AtpError):
    """PostgreSQL works and refused the data: too large, malformed, against a constraint."""


class StateUnavailable(Unavailable):
    """Redis refused, timed out, or is known to be away. `state.failover` answers it with memory."""


class StateRejected(StateUnavailable):
    """Redis works and refused the command (no permission, out of memory, a foreign type); memory answers instead."""


class UpstreamError(AtpError):
    """The model server refused, died or answered something that is not an answer."""

    status, code, title = 502, "upstream-error", "The model server failed"


class UpstreamTimeout(UpstreamError):
    status, code, title = 504, "upstream-timeout", "The model server took too long"


class DeadlinePassed(AtpError):
    status, code, title = 504, "deadline-passed", "The task's deadline has passed"


class RunTooLong(AtpError):
    status, code, title = 504, "run-too-long", "The task ran longer than it may"


class ResultTooLarge(AtpError):
    """Of a task: what its models answered, `result_bytes` as JSON, is more than the `limit_bytes` that are kept."""

    status, code, title = 413, "result-too-large", "The task's result is too large"

    def __init__(self, result_bytes: int, limit_bytes: int) -> None:
        detail = f"The result has {result_bytes:,} bytes; at most {limit_bytes:,} are kept."
        super().__init__(detail, result_bytes=result_bytes, limit_bytes=limit_bytes)


class GivenUp(AtpError):
    """Every worker that began it died with it, or was stopped by force."""

    status, code, title = 500, "given-up", "The task was begun too often without an end"


def last_line(error: BaseException | None) -> str:
    """The last line of a driver's message, where it says the reason; the type's name when it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
