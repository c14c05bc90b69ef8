"""What the server itself answers: RFC 9457 problems, as `service.http.problems` writes those of the application."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4


class RequestRefused(Exception):
    """A request that h11 accepts and we do not; answered with `status` and closed."""

    def __init__(self, status: int, with_body: bool = True) -> None:
        super().__init__(status)
        self.status = status
        self.with_body = with_body  # not in answer to HEAD


@dataclass(frozen=True)
class Problem:
    """A constant problem document; `docs/problems.md` lists the codes."""

    code: str
    title: str
    detail: str


BAD_REQUEST = Problem(
    "bad-request",
    "The request cannot be understood",
    "The request is not well-formed HTTP/1.1 with one Host and a path",
)
PROBLEMS = {
    400: BAD_REQUEST,
    431: Problem("headers-too-large", "The request headers are too large", "Send fewer or shorter headers"),
    500: Problem("internal", "Internal error", "Nothing of the inside is told; quote the request_id"),
    501: Problem("not-implemented", "That is not implemented here", "The only transfer coding here is chunked"),
    503: Problem("overloaded", "No new connections now", "This server is full or about to stop; try again"),
    505: Problem("http-version", "That HTTP version is not supported", "Only HTTP/1.0 and HTTP/1.1 are spoken here"),
}


def refusal(status: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body, with a request_id of its own to quote in a support request."""
    request_id = uuid4().hex
    problem = PROBLEMS.get(status, BAD_REQUEST)
    members = {
        "type": f"urn:atp:problem:{problem.code}",
        "title": problem.title,
        "status": status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    body = json.dumps(members, separators=(",", ":")).encode("ascii")
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
        (b"connection", b"close"),
    ]
    return [(b"retry-after", b"1"), *headers] if status == 503 else headers, body


def refusal_bytes(status: int) -> bytes:
    """The whole answer, for where no protocol runs."""
    headers, body = refusal(status)
    head = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))
    return head + b"".join(b"%b: %b\r\n" % (name.title(), value) for name, value in headers) + b"\r\n" + body
