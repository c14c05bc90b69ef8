"""Starlette without the parts of it that every request would pass for nothing."""

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, ExceptionHandler

from service.http.table import Table


class Application(Starlette):
    """`context` is the outermost middleware: it has the last word on errors, so Starlette's ServerErrorMiddleware would
    only pass each message on once more, as would the router's own stack, which is empty."""

    def __init__(
        self, context: type, *arguments: Any, table: Table, exception_handlers: Mapping[Any, ExceptionHandler]
    ) -> None:
        super().__init__(exception_handlers=exception_handlers)
        self.router = table
        self._context, self._arguments = context, arguments

    def build_middleware_stack(self) -> ASGIApp:
        handled = ExceptionMiddleware(self.router.app, handlers=self.exception_handlers)
        app: ASGIApp = self._context(handled, *self._arguments)
        return app
