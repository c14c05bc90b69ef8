"""Who is calling: `X-API-Key`, or `Authorization: Bearer` as OpenAI's clients send it."""

from starlette.types import Scope

from service.errors import Forbidden, Unauthorized
from service.keys.verifier import Identity, KeyVerifier
from service.telemetry.metrics import Metrics


class Authenticator:
    """Verifies the key of a request and its scope; counts refusals by reason, and leaves the prefix for the span."""

    def __init__(self, verifier: KeyVerifier, metrics: Metrics) -> None:
        self._verifier, self._failures = verifier, metrics.auth_failures

    async def identify(self, scope: Scope, needed: str) -> Identity:
        """Raises Unauthorized or Forbidden."""
        try:
            identity = await self._verifier.verify(presented_key(scope))
            identity.require(needed)
        except (Unauthorized, Forbidden) as error:
            self._failures.labels(error.extra["reason"]).inc()
            raise
        scope["atp.key_prefix"] = identity.key_prefix
        return identity


def presented_key(scope: Scope) -> str:
    """The key as sent; raises Unauthorized when there is none."""
    bearer = b""
    for name, value in scope["headers"]:
        if name == b"x-api-key" and value.strip():
            return str(value.decode("latin-1")).strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:]
    if not bearer:
        raise Unauthorized("Send an API key in X-API-Key or Authorization: Bearer.", reason="missing")
    return str(bearer.decode("latin-1")).strip()
