"""What a handler promises beyond its scope and body, beside the handler itself: the OpenAPI document is made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from service.errors import AtpError

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Contract:
    """Models of `query`, `segments` and `headers` are those with which the handler reads them."""

    answer: Any = None  # type of the JSON answer, a TypedDict or a model; None: there is no body
    status: int = 200  # of an answer that is no problem
    media: tuple[str, ...] = ()  # what it may answer beside application/json; keys of `openapi_parts.MEDIA`
    tells: tuple[str, ...] = ()  # headers of such an answer, beside those of every one; keys of `openapi_parts.HEADERS`
    conditional: bool = False  # 304 for who has it already (If-None-Match)
    query: type[BaseModel] | None = None
    query_as_body: bool = False  # the same parameters may stand in a JSON body
    segments: type[BaseModel] | None = None  # the path's parameters; any string, where it is silent
    headers: type[BaseModel] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)  # of the body, by a word for each
    calls: Mapping[str, Any] = field(default_factory=dict)  # field of the body with a URL -> what is sent there later
    errors: tuple[type[AtpError], ...] = ()  # beside those that every operation, or every one with a body, may give


UNTOLD = Contract()


def answers(answer: Any, **more: Any) -> Callable[[Function], Function]:
    """`@answers(Item, status=201, errors=(Conflict,))` before a handler; the keywords are Contract's fields."""

    def tell(handler: Function) -> Function:
        handler.__dict__["contract"] = Contract(answer, **more)
        return handler

    return tell


def contract_of(handler: Callable[..., Any]) -> Contract:
    found = getattr(handler, "contract", UNTOLD)
    return found if isinstance(found, Contract) else UNTOLD
