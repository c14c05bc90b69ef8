"""Errors as application/problem+json (RFC 9457).

`type` is `urn:atp:problem:<code>` and never changes its meaning; `docs/problems.md` lists them. Every problem carries
the request_id to quote in a support request.
"""

import math
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from service import errors
from service.errors import PROBLEM, AtpError
from service.http.openai_errors import OPENAI_PATHS, openai_error, openai_status

BY_STATUS: dict[int, type[AtpError]] = {
    error.status: error
    for error in (
        errors.BadRequest,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.PayloadTooLarge,
    )
}


def problem(error: AtpError, request_id: str) -> dict[str, Any]:
    """The members of the problem document; extension members come from the error's `extra`."""
    document = {
        "type": PROBLEM + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail or error.title,
        "request_id": request_id,
    }
    return document | error.extra


def problem_response(error: AtpError, request_id: str) -> Response:
    document = to_json(problem(error, request_id))
    return Response(document, error.status, headers_of(error), media_type="application/problem+json")


def openai_response(error: AtpError, request_id: str) -> Response:
    document = to_json(openai_error(problem(error, request_id)))
    return Response(document, openai_status(error.status), headers_of(error), media_type="application/json")


def headers_of(error: AtpError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="atp"'
    return headers


def answer_for(request: Request, error: AtpError) -> Response:
    """OpenAI's clients understand nothing but OpenAI's own shape of an error."""
    respond = openai_response if request.url.path.startswith(OPENAI_PATHS) else problem_response
    return respond(error, request.scope["atp.request_id"])


async def on_atp_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AtpError)  # noqa: S101 - the table below says so; mypy cannot
    return answer_for(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404, 405 and 413, in our words."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    known = BY_STATUS.get(error.status_code, errors.BadRequest)()
    response = answer_for(request, known)
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS: dict[Any, ExceptionHandler] = {AtpError: on_atp_error, HTTPException: on_http_exception}
