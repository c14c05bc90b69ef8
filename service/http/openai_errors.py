"""A problem in the words of OpenAI's API, whose clients choose their error class by status and `code`."""

from collections.abc import Mapping
from typing import Any

OPENAI_PATHS = "/v1/"  # what lies below speaks OpenAI's language

# By our problem's last word. OpenAI answers a body that breaks the schema with 400, not 422.
CODES: dict[str, tuple[str, str | None]] = {
    "unauthorized": ("authentication_error", "invalid_api_key"),
    "forbidden": ("permission_error", "insufficient_permissions"),
    "blocked": ("permission_error", "blocked"),
    "rate-limited": ("rate_limit_error", "rate_limit_exceeded"),
    "too-many": ("rate_limit_error", "rate_limit_exceeded"),
    "unavailable": ("server_error", "service_unavailable"),
    "upstream-error": ("server_error", "upstream_error"),
    "upstream-timeout": ("server_error", "upstream_timeout"),
}
STATUS = {422: 400, 413: 400, 415: 400}


def openai_status(status: int) -> int:
    return STATUS.get(status, status)


def openai_error(problem: Mapping[str, Any]) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`, and the request id to quote."""
    fallback = "server_error" if problem["status"] >= 500 else "invalid_request_error"
    type_, code = CODES.get(problem["type"].rpartition(":")[2], (fallback, None))
    faults = problem.get("errors") or [{}]
    message = " ".join(filter(None, (problem["detail"], faults[0].get("field"), faults[0].get("message"))))
    return {
        "error": {
            "message": message,
            "type": type_,
            "param": problem.get("param") or faults[0].get("field") or None,
            "code": problem.get("openai_code") or code,
        },
        "request_id": problem["request_id"],
    }
