"""The OpenAPI document of this code."""

from functools import cache
from typing import get_type_hints

from service.app import Handlers, operations
from service.http.openapi import document
from service.http.openapi_parts import Json
from service.wiring.ground import VERSION


@cache
def api_document() -> Json:
    """Of the handlers' classes, so that it is the same on every node and none has to be open for it.

    Takes 0.05 s: once a process, at its start, where no request waits for it.
    """
    return document(operations(Handlers(**get_type_hints(Handlers))), VERSION)
