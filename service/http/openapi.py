"""The OpenAPI 3.1.1 document of a route table: everything in it comes from the table, its types and its docstrings."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from service import errors
from service.errors import AtpError
from service.http.openai_errors import OPENAI_PATHS
from service.http.openapi_parts import (
    ABOUT,
    BY_STATUS,
    EVERY_ANSWER,
    HEADERS,
    OPENAI_HEADERS,
    PARAMETERS,
    SECURITY_SCHEMES,
    WEBHOOK_HEADERS,
    Json,
    OpenAIError,
    Problem,
    error_shape,
    error_status,
    media_type,
)
from service.http.openapi_schemas import Schemas, parameters
from service.http.operation import Operation

# Any request may be refused for these reasons; those with a body, or with parameters, for some more.
ANY = (
    errors.BadRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.Blocked,
    errors.TooMany,
    errors.RateLimited,
    AtpError,
    errors.Unavailable,
)
WITH_PARAMETERS = (errors.Invalid,)
WITH_BODY = (errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType, errors.Invalid)
CONVERTOR = re.compile(r"{(\w+):\w+}")


def document(operations: Sequence[Operation], version: str) -> Json:
    """Every operation of the table; `version` is the package's."""
    models = [model for operation in operations for model in (operation.body, body_of_query(operation)) if model]
    answers = [operation.contract.answer for operation in operations if operation.contract.answer is not None]
    answers += [sent for operation in operations for sent in operation.contract.calls.values()]
    schemas = Schemas(models, [*answers, Problem, OpenAIError])
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(template(operation.path), {})[operation.method.lower()] = described(operation, schemas)
    return {
        "openapi": "3.1.1",
        "info": {"title": "ATP", "version": version, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(tag(operation.path) for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.definitions.items())),
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def described(operation: Operation, schemas: Schemas) -> Json:
    """The Operation Object (OpenAPI 3.1.1, section 4.8.10)."""
    summary, _, rest = inspect.cleandoc(operation.handler.__doc__ or "").partition("\n")
    scope = f"Needs a key with the scope `{operation.scope}`."
    asked = {"parameters": in_request(operation)} | body(operation, schemas)
    return {
        "operationId": operation_id(operation),
        "summary": summary.removesuffix("."),
        "description": f"{rest.strip()}\n\n{scope}".strip(),
        "tags": [tag(operation.path)],
        "x-required-scope": operation.scope,
        "security": [{"apiKey": []}, {"bearer": []}],
        **asked,
        "responses": {**successes(operation, schemas), **problems(operation, schemas)},
        **callbacks(operation, schemas),
    }


def template(path: str) -> str:
    """OpenAPI's path: Starlette's without the convertors."""
    return CONVERTOR.sub(r"{\1}", path)


def words(path: str) -> list[str]:
    """`/api/v1/chat` is `chat`, `/api/admin/drain` is `admin`, `drain`; `/v1/models` is OpenAI's."""
    plain = template(path).strip("/").replace("{", "").replace("}", "")
    plain = re.sub(r"^v1/", "openai/", plain).removeprefix("api/").removeprefix("v1/")
    return re.split(r"[/_-]", plain)


def operation_id(operation: Operation) -> str:
    """Of the method and the path, so that clients made from the document do not change with our names of classes."""
    return "_".join([operation.method.lower(), *words(operation.path)])


def tag(path: str) -> str:
    """The group: the first word, `ws-tickets` and its like whole."""
    return "openai" if path.startswith(OPENAI_PATHS) else path.removeprefix("/api/").removeprefix("v1/").split("/")[0]


def in_request(operation: Operation) -> list[Json]:
    """Parameters of path, query and headers; a path's that no model knows is any string."""
    known = {found["name"]: found for found in parameters(operation.contract.segments, "path")}
    names = re.findall(r"{(\w+)}", template(operation.path))
    anything = {"in": "path", "required": True, "schema": {"type": "string"}}
    found = [known.get(name, {"name": name, **anything}) for name in names]
    contract = operation.contract
    found += parameters(contract.query, "query") + parameters(contract.headers, "header")
    shared = [*(["If-None-Match"] if contract.conditional else []), "X-Request-Id"]
    return [*found, *({"$ref": f"#/components/parameters/{name}"} for name in shared)]


def body_of_query(operation: Operation) -> Any:
    return operation.contract.query if operation.contract.query_as_body else None


def body(operation: Operation, schemas: Schemas) -> Json:
    model = operation.body or body_of_query(operation)
    if model is None:
        return {}
    content: Json = {"schema": schemas.request(model)}
    if shown := operation.contract.examples:
        content["examples"] = {name: {"value": value} for name, value in shown.items()}
    return {"requestBody": {"required": operation.body is not None, "content": {"application/json": content}}}


def successes(operation: Operation, schemas: Schemas) -> Json:
    contract, content = operation.contract, {}
    if contract.answer is not None:
        content["application/json"] = {"schema": schemas.answer(contract.answer)}
    content |= {media: media_type(operation.path, media) for media in contract.media}
    tells = (*contract.tells, *(["ETag"] if contract.conditional else []))
    told = {"description": "Done.", "headers": headers(operation, contract.status, *tells)}
    found = {str(contract.status): told | {"content": content} if content else told}
    if contract.conditional:
        found["304"] = {"description": "The caller has it already.", "headers": headers(operation, 304, *tells)}
    return found


def callbacks(operation: Operation, schemas: Schemas) -> Json:
    """What is sent to URLs that the body gave (OpenAPI 3.1.1, section 4.8.18), by the name of the field."""
    found = {}
    for name, sent in operation.contract.calls.items():
        content = {"application/json": {"schema": schemas.answer(sent)}}
        post = {
            "summary": inspect.cleandoc(sent.__doc__ or "").partition("\n")[0],
            "parameters": WEBHOOK_HEADERS,
            "requestBody": {"required": True, "content": content},
            "responses": {"2XX": {"description": "Taken."}},
            "security": [],
        }
        found[name] = {f"{{$request.body#/{name}}}": {"post": post}}
    return {"callbacks": found} if found else {}


def problems(operation: Operation, schemas: Schemas) -> Json:
    """By status; several problems of one status are told in one description."""
    media, shape = error_shape(operation.path)
    by_status: dict[int, list[str]] = {}
    given: list[type[AtpError]] = [*ANY, *operation.contract.errors, *implied(operation)]
    for error in dict.fromkeys(given):
        by_status.setdefault(error_status(operation.path, error.status), []).append(f"`{error.code}`: {error.title}.")
    content = {media: {"schema": schemas.answer(shape)}}
    return {
        str(status): {"description": " ".join(texts), "headers": headers(operation, status), "content": content}
        for status, texts in sorted(by_status.items())
    }


def implied(operation: Operation) -> tuple[type[AtpError], ...]:
    contract = operation.contract
    found: tuple[type[AtpError], ...] = (errors.NotFound,) if "{" in operation.path else ()  # a line break in the path
    if operation.body or contract.query_as_body:
        return found + WITH_BODY
    return found + WITH_PARAMETERS if contract.query or contract.segments or contract.headers else found


def headers(operation: Operation, status: int, *more: str) -> Json:
    own = OPENAI_HEADERS if operation.path.startswith(OPENAI_PATHS) else ()
    names = (*EVERY_ANSWER, *own, *BY_STATUS.get(status, ()), *more)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
