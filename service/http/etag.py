"""Conditional requests: an answer that the client has already is not sent again (RFC 9110 section 13)."""

import hashlib
import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

# RFC 9110 section 8.8.3; a weak one is compared by its opaque part (section 8.8.3.2).
ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def entity_tag(body: bytes) -> str:
    """A strong one: the body's SHA-256, so every node gives the same."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def has_already(request: Request, tag: str) -> bool:
    """Whether If-None-Match names `tag`, in a list, weak or strong, or as `*` (RFC 9110 section 13.1.2)."""
    sent = ", ".join(request.headers.getlist("if-none-match"))
    return sent.strip() == "*" or tag in ENTITY_TAG.findall(sent)


def unless_known(
    request: Request, body: bytes, tag: str, headers: Mapping[str, str], media: str = "application/json"
) -> Response:
    """200 with the body, or 304 without; the headers that tell caches what to do go with both (section 15.4.5)."""
    headers = {**headers, "etag": tag}
    if has_already(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media)
