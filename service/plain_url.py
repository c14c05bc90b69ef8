"""URLs in their plain form, and which lead below which.

A URL that two programs read differently is how requests are sent where they should not go. So only the plain form is
taken (RFC 3986 in ASCII; a name in another script is written as `xn--`): no user, no fragment, no backslash, no dot
segment, however it is escaped.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

# RFC 3986: scheme, host (2.3 unreserved; 3.2.2 IPv6), port, path (3.3 pchar), query (3.4).
PLAIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/(?:[a-z0-9._~!$&'()*+,;=:@-]|%[0-9a-f]{2})*)*)"
    r"(?P<query>\?(?:[a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*)?",
    re.IGNORECASE | re.ASCII,
)
PORTS = {"http": 80, "https": 443}
MOST_PORT = 65_535
ESCAPED_MOST = 3


@dataclass(frozen=True)
class Place:
    """What of a URL decides whether it may be called. Scheme and host are in small letters; the port is never left out,
    the path as it was written."""

    scheme: str
    host: str
    port: int
    path: str

    def under(self, beginning: "Place") -> bool:
        """Whether it is the beginning itself, or what its path leads to: `/atp` to `/atp/x`, not to `/atpx`."""
        same = (self.scheme, self.host, self.port) == (beginning.scheme, beginning.host, beginning.port)
        return same and (self.path == beginning.path or (self.path or "/").startswith(beginning.path.rstrip("/") + "/"))


def place(url: str) -> Place | None:
    """None for what is no http or https URL in its plain form."""
    found = PLAIN.fullmatch(url)
    if not found or climbs(found["path"]):
        return None
    scheme = found["scheme"].lower()
    port = int(found["port"] or PORTS[scheme])
    return Place(scheme, found["host"].lower(), port, found["path"]) if 0 < port <= MOST_PORT else None


def climbs(path: str) -> bool:
    """Whether a server might read `.` or `..` as a segment: escaped once or oftener, behind a backslash, or with
    parameters (`..;x`), as some do. What is escaped still oftener is not looked into, and refused."""
    for _ in range(ESCAPED_MOST):
        path = unquote(path)
    return unquote(path) != path or any(
        segment.partition(";")[0] in (".", "..") for segment in re.split(r"[/\\]", path)
    )


def beginning(url: str) -> Place | None:
    """What other URLs may lie under; None also for what has a query."""
    return None if "?" in url else place(url)
