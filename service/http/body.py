"""From a request's bytes to a validated model: size, deadline, content type, JSON, schema."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, Invalid, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

Body = TypeVar("Body", bound=BaseModel)
Valid = TypeVar("Valid")

BODY_BYTES = 1_000_000
# A body of the largest size over a poor line; longer is a client that holds a connection on purpose.
BODY_DEADLINE_S = 15.0
SHOWN_FAULTS = 20


async def read_json(request: Request, model: type[Body], limit_bytes: int = BODY_BYTES) -> Body:
    """Read and validate the body.

    Starlette's own cap (`Route(max_body_size=…)`) answers text/plain, so the counting is ours.

    Raises:
        UnsupportedMediaType, PayloadTooLarge, RequestTimeout, BadRequest (not JSON), Invalid (names the fields).
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType()
    return parse(await read(request, limit_bytes), model)


async def read(request: Request, limit_bytes: int) -> bytes:
    if declared_bytes(request) > limit_bytes:
        raise too_large(limit_bytes)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout() from None
    except ClientDisconnect:
        raise BadRequest("The request body ended early.") from None
    return b"".join(chunks)


def declared_bytes(request: Request) -> int:
    """Content-Length; 0 when absent (h11 has refused one that is not a number)."""
    return int(request.headers.get("content-length", 0))


def too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body may have at most {limit_bytes} bytes.")


def parse(data: bytes, model: type[Body]) -> Body:
    """Raises BadRequest or Invalid. Strict, as the schema is that callers are shown: `"5"` is not 5, nor 1 true."""
    # A body that may be one of several kinds has faults that begin with the kind's name, which callers do not know.
    above = 1 if issubclass(model, RootModel) else 0
    return validated(lambda: model.model_validate_json(data, strict=True), above)


def validated(validate: Callable[[], Valid], above: int = 0) -> Valid:
    """What pydantic makes of some input, its faults in our words; raises BadRequest (not JSON) or Invalid. Of a fault's
    place so many parts, `above`, are left out."""
    try:
        return validate()
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        raise BadRequest(faults[0]["msg"].removeprefix("Invalid JSON: "))
    shown = [described(fault, above) for fault in faults[:SHOWN_FAULTS]]
    raise Invalid("The request does not fit the schema.", errors=shown)


def described(fault: Any, above: int) -> dict[str, str]:
    return {"field": ".".join(map(str, fault["loc"][above:])), "message": fault["msg"].removeprefix("Value error, ")}
