"""What stands in every OpenAPI document of ATP, whatever its operations are: texts, headers, media, security."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from service.http.openai_errors import OPENAI_PATHS, openai_status

Json = dict[str, Any]

ABOUT = """\
Chat with LLM agents, see who is online, account for every key.

Every operation needs an API key with its scope (`x-required-scope`), in `X-API-Key` or as `Authorization: Bearer`.

**Errors** are `application/problem+json` (RFC 9457): branch on `type`, quote `request_id`. Paths under `/v1/` answer
errors in the shape of OpenAI's API instead.

**WebSocket.** `GET /ws/session` opens a socket for chats that stream side by side and for pushes; OpenAPI has no words
for its messages, docs/websocket.md of the source tells them. Browsers open it with a ticket from
`POST /api/v1/ws-tickets`.

**In a path** a slash inside an id may be written as it is or as `%2F`.
"""

SECURITY_SCHEMES: Json = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`atp_live_…`"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key, as OpenAI's clients send it."},
}

EVENTS = """\
Server-sent events, each with `event` and one `data` line of JSON: `delta` (a piece: `agent`, `text`), `answer` (an
agent has finished: `agent`, `model`, `finish_reason`, `usage`), `error` (a problem; with `agent` only that one failed),
and last `done` (`id`, `usage`), once the usage is durable.
"""
TASK_EVENTS = """\
Server-sent events, each with `event` and one `data` line of JSON: what the task is now, then what becomes of it:
`queued`, `started`, `delta` (a piece of a task with `stream`: `agent`, `text`, `at`), and last `done`, `failed` or
`cancelled`. All but `delta` have the `task` as a list of tasks shows it. `error`: the key has ended.
"""
CHUNKS = """\
Server-sent events with one `data` line each: `chat.completion.chunk` objects, and last `[DONE]`, once the usage is
durable. An `error` object ends the stream instead.
"""
MEDIA: Json = {
    # OpenAPI 3.1 does not say whether a schema would be of the whole stream or of each event, so there is no type.
    "text/event-stream": {"schema": {"description": EVENTS}},
    "text/csv": {"schema": {"type": "string", "description": "The same as comma-separated values, RFC 4180."}},
}

HEADERS: Json = {
    "X-Request-Id": {
        "description": "The id of this request: the caller's own if it sent a sane one, else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{8,128}$"},
    },
    "RateLimit-Policy": {
        "description": "The limits that apply: their quota `q` and window `w` in seconds.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "What is left of them: `r` requests, and `t` seconds until it is more.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "X-Cache": {
        "description": "Whether the answer was known: HIT, MISS, or BYPASS where a known one would not do. Not told of "
        "several agents' answers that come piece by piece.",
        "schema": {"type": "string", "enum": ["HIT", "MISS", "BYPASS"]},
    },
    "Age": {"description": "How old a known answer is, in seconds.", "schema": {"type": "integer", "minimum": 0}},
    "Cache-Control": {"description": "Who may keep the answer (RFC 9111).", "schema": {"type": "string"}},
    "ETag": {"description": "What this answer is known by (RFC 9110).", "schema": {"type": "string"}},
    "x-ratelimit-limit-requests": {"description": "The quota.", "schema": {"type": "integer", "minimum": 0}},
    "x-ratelimit-remaining-requests": {"description": "What is left.", "schema": {"type": "integer", "minimum": 0}},
    "x-ratelimit-reset-requests": {
        "description": "Until the whole quota is there again, such as `1.5s`.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
}
# Of what is sent to a URL that a client gave (Standard Webhooks specification 1.0.0).
WEBHOOK_HEADERS: list[Json] = [
    {"name": name, "in": "header", "required": required, "description": text, "schema": {"type": kind}}
    for name, required, kind, text in (
        ("webhook-id", True, "string", "The same each time it is sent: who has seen it may leave it."),
        ("webhook-timestamp", True, "integer", "When this was sent, in seconds of Unix."),
        ("webhook-signature", False, "string", "`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; several with "
         "spaces between. Not there unless the operator has set a secret."),
    )
]  # fmt: skip
EVERY_ANSWER = ("X-Request-Id", "RateLimit-Policy", "RateLimit")
OPENAI_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
BY_STATUS = {401: ("WWW-Authenticate",), 403: ("Retry-After",), 429: ("Retry-After",), 503: ("Retry-After",)}

PARAMETERS: Json = {
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The `ETag` of the answer that the caller has.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "The caller's own id, 8 to 128 of `A-Za-z0-9._:-`; another is replaced.",
        "schema": {"type": "string"},
    },
}


class Fault(TypedDict):
    """One field that breaks the schema; `field` is its place, with dots."""

    field: str
    message: str


class Problem(TypedDict):
    """RFC 9457. Some types have members of their own, such as `known` or `reason`; docs/problems.md tells them."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: NotRequired[list[Fault]]


class OpenAIFault(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(TypedDict):
    """An error in the shape of OpenAI's API."""

    error: OpenAIFault
    request_id: str


ErrorMedia = Literal["application/problem+json", "application/json"]


def media_type(path: str, media: str) -> Json:
    """The Media Type Object (section 4.8.14)."""
    if media == "text/event-stream" and path.startswith(OPENAI_PATHS):
        return {"schema": {"description": CHUNKS}}
    if media == "text/event-stream" and path.endswith("/events"):
        return {"schema": {"description": TASK_EVENTS}}
    found: Json = MEDIA[media]
    return found


def error_status(path: str, status: int) -> int:
    return openai_status(status) if path.startswith(OPENAI_PATHS) else status


def error_shape(path: str) -> tuple[ErrorMedia, type[Problem] | type[OpenAIError]]:
    """OpenAI's clients understand nothing but OpenAI's own errors."""
    return ("application/json", OpenAIError) if path.startswith(OPENAI_PATHS) else ("application/problem+json", Problem)
