"""The HTTP side of callbacks: one POST to somebody's server, of which only the status and Retry-After are read."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

# Below the 5 s after which common servers close an idle connection.
KEEP_ALIVE_S = 4.0
# Of a 4xx these say "not now" (RFC 9110, 15.5; RFC 6585, 4; RFC 8470, 5.2); the others will not change.
LATER = (408, 409, 425, 429)


class Undelivered(Exception):
    """It was not taken: `reason` is a word for the log; `for_good`: trying again would change nothing; `after_s`: the
    receiver's Retry-After, 0 without one."""

    def __init__(self, reason: str, *, for_good: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.for_good, self.after_s = reason, for_good, after_s


@dataclass(frozen=True)
class Message:
    """What a receiver is sent."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Receivers:
    """Use as a context manager: the connections live inside. `timeout_s` is for all of one delivery."""

    def __init__(self, timeout_s: float, connections: int) -> None:
        self._timeout_s, self._connections = timeout_s, connections

    async def __aenter__(self) -> "Receivers":
        # By aiohttp's defaults no proxy of the environment is used.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "ATP", "content-type": "application/json"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, message: Message) -> int:
        """Return when it was taken, the status: any 2xx.

        A redirect is not followed: it leads where nobody allowed. The answer's body is not read: where there is one the
        connection is closed.

        Raises:
            Undelivered: anything else became of it.
        """
        url = URL(message.url, encoded=True)  # as it was checked: the library would write it anew
        with network_errors():
            async with self._session.post(
                url, data=message.body, headers=message.headers, allow_redirects=False
            ) as response:
                status, after_s = response.status, retry_after_s(response.headers)
        if not 200 <= status < 300:
            for_good = 400 <= status < 500 and status not in LATER
            raise Undelivered(str(status), for_good=for_good, after_s=after_s)
        return status


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Its seconds (RFC 9110, 10.2.3); 0 for none, and for a date."""
    told = headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() and len(told) < 10 else 0.0


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Translate aiohttp's errors, once; their texts may quote the URL."""
    try:
        yield
    except TimeoutError:
        raise Undelivered("timeout") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Undelivered(type(error).__name__) from None
