"""`/openapi.json`, and `/docs`: Swagger UI, whole without any other host."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.etag import entity_tag, unless_known

# The package is only looked up, never imported: what it would import (Flask) is not here.
PACKAGE = "flask_swagger_ui"
FILES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
START = b"""\
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ATP: the API</title>
<link rel="stylesheet" href="{files}/swagger-ui.css">
<link rel="icon" type="image/png" href="{files}/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="/openapi.json">the document</a> does not.</noscript>
<script src="{files}/swagger-ui-bundle.js"></script>
<script src="{files}/start.js"></script>
</body>
</html>
"""
# Nothing inline, no other host; the images are icons inside Swagger UI's style sheet.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
FRESH = "public, max-age=60"
FOR_EVER = "public, max-age=31536000, immutable"  # the digest in the path changes with the files


class DocsRoutes:
    """All of it is made and read once; what is not in this list of routes is 404."""

    def __init__(self, document: dict[str, Any]) -> None:
        dist = Path(str(package_folder())) / "dist"
        self._files = {name: ((dist / name).read_bytes(), media) for name, media in FILES.items()}
        self._files["start.js"] = (START, "text/javascript; charset=utf-8")
        self._document = to_json(document)

    def routes(self) -> list[Route]:
        folder = f"/docs/{digest(b''.join(content for content, _ in self._files.values()))}"
        page = PAGE.format(files=folder).encode()
        return [
            fixed("/openapi.json", self._document, "application/json", FRESH),
            fixed("/docs", page, "text/html; charset=utf-8", FRESH, {"content-security-policy": POLICY}),
            *(fixed(f"{folder}/{name}", *file, FOR_EVER) for name, file in self._files.items()),
        ]


def package_folder() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed; it is among ATP's requirements")
    return spec.submodule_search_locations[0]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def fixed(path: str, content: bytes, media: str, cache: str, more: dict[str, str] | None = None) -> Route:
    """A route to bytes that never change, with their ETag."""
    tag, headers = entity_tag(content), {"cache-control": cache, **SAFE, **(more or {})}

    async def serve(request: Request) -> Response:
        return unless_known(request, content, tag, headers, media)

    return Route(path, serve)
