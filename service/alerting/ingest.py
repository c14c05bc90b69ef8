"""Sentry's envelope endpoint, asked for its answer: whoever acknowledges an alert must know that Sentry took it.

Source: Sentry's developer documentation, "Envelopes" and "Rate Limiting".
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from sentry_sdk.envelope import Envelope, Item, PayloadRef
from sentry_sdk.utils import BadDsn, Dsn

from service.errors import SettingsError, Unavailable

CONNECT_S, TOTAL_S = 3.0, 5.0
# Below the 5 s after which common servers close an idle connection.
KEEP_ALIVE_S = 4.0
AGAIN_S = 5.0
LONGEST_WAIT_S = 300.0
# What its limits call our items; a limit of no category is of all.
CATEGORIES = {"event": ("error", "default", ""), "check_in": ("monitor", "")}
# This event is at fault, and would be the next time too. Of 401, 403 and 404 the DSN is: that can be mended meanwhile.
REFUSALS = (400, 413, 415, 422)
# A DSN of a host in here says that there is no Sentry: nobody can ever have the name (RFC 2606, 2).
NOWHERE = ".invalid"


class Refused(Exception):
    """Sentry works, and will never take this; `status` says what it answered."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class SentryIngest:
    """One project of Sentry; use as a context manager.

    `up` is whether it took what was last sent; `nowhere` is whether there is none, by its DSN: then do not send.
    """

    def __init__(self, dsn: str, sender: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingsError; `sender` is our name and version."""
        try:
            parts = Dsn(dsn)
            auth = parts.to_auth(sender)
        except (BadDsn, ValueError):  # their text quotes the DSN
            raise SettingsError("SENTRY_DSN: copy it from the project's settings in Sentry") from None
        self._url, self._auth, self._sender = auth.get_api_url(), auth.to_header(), sender
        self._clock, self._not_before = clock, dict[str, float]()  # by category
        self.nowhere = str(parts.host).endswith(NOWHERE)
        self.up = not self.nowhere

    async def __aenter__(self) -> "SentryIngest":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=4, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=TOTAL_S, connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "user-agent": self._sender,
                "content-type": "application/x-sentry-envelope",
                "x-sentry-auth": self._auth,
            },
            trust_env=True,  # HTTPS_PROXY, as Sentry's SDK does
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def event(self, event: Mapping[str, Any]) -> None:
        """Return once Sentry has taken it. Raises Refused, Unavailable."""
        await self._send({"event_id": event["event_id"]}, "event", event)

    async def check_in(self, check_in: Mapping[str, Any]) -> None:
        """Return once Sentry has taken it. Raises Refused, Unavailable."""
        await self._send({}, "check_in", check_in)

    async def _send(self, headers: dict[str, Any], kind: str, payload: Mapping[str, Any]) -> None:
        if (wait_s := self._wait_s(kind)) > 0:
            raise Unavailable("Sentry asked to wait.", retry_after_s=wait_s)
        envelope = Envelope(headers, [Item(PayloadRef(json=dict(payload)), type=kind)])
        self.up = False
        with network_errors():
            async with self._session.post(self._url, data=envelope.serialize(), allow_redirects=False) as response:
                status, answered = response.status, response.headers
        self.up = status < 300 or status in REFUSALS
        after = seconds(answered.get("retry-after", "")) or AGAIN_S
        self._keep(answered.get("x-sentry-rate-limits", "") or (f"{after:.0f}::" if status == 429 else ""))
        if not self.up:
            raise Unavailable(f"Sentry answered {status}.", retry_after_s=max(self._wait_s(kind), after))
        if status >= 300:
            raise Refused(status)

    def _keep(self, limits: str) -> None:
        """Asked to wait, the bridge sends nothing of that category until then; a limit may come with any answer."""
        for limit in limits.split(","):
            wait, _, scope = limit.strip().partition(":")
            if wait_s := seconds(wait):
                until = self._clock() + wait_s
                self._not_before |= dict.fromkeys(scope.partition(":")[0].split(";"), until)

    def _wait_s(self, kind: str) -> float:
        """0 or less: it may be sent."""
        return max(self._not_before.get(category, 0.0) for category in CATEGORIES[kind]) - self._clock()


def seconds(text: str) -> float:
    """At most LONGEST_WAIT_S; 0 for what is no number."""
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 0.0


@contextmanager
def network_errors() -> Iterator[None]:
    """Translate aiohttp's errors, once; their texts may quote the URL."""
    try:
        yield
    except TimeoutError:
        raise Unavailable("Sentry does not answer.", retry_after_s=AGAIN_S) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"Sentry is away: {type(error).__name__}.", retry_after_s=AGAIN_S) from None
