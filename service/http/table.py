"""The route table as a router: paths without parameters are looked up, not tried one after the other."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send


class Table(Router):
    """Starlette's router with a dictionary before it; what is not in the dictionary goes Starlette's way.

    Starlette matches every route's pattern in turn, so that each route added would slow all requests down.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        super().__init__(routes=routes, redirect_slashes=False)
        self._plain = {
            (method, route.path): route
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._plain.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._tried(scope, receive, send)
            return
        scope["route"] = route
        scope["endpoint"], scope["path_params"] = route.endpoint, {}
        await route.app(scope, receive, send)

    async def _tried(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's way; its 405 names the methods of one route, RFC 9110 (15.5.6) wants those of the whole path."""
        try:
            await super().app(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405:
                error.headers = {"Allow": ", ".join(self._methods(scope))}
            raise

    def _methods(self, scope: Scope) -> list[str]:
        here = (route for route in self.routes if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE)
        return sorted({method for route in here for method in route.methods or ()})
