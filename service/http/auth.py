"""Who is calling: `X-API-Key`, `Authorization: Bearer` as OpenAI's clients send it, or a ticket on a WebSocket."""

from starlette.types import Scope

from service.errors import Blocked, Forbidden, Unauthorized
from service.keys.blocks import Blocks
from service.keys.verifier import Identity, KeyVerifier
from service.live.tickets import Tickets
from service.telemetry.metrics import Metrics


class Authenticator:
    """Verifies the key of a request, its scope, and that neither it nor its user is kept out.

    Counts refusals by reason, and leaves the key's prefix in the ASGI scope for the span.
    """

    def __init__(self, verifier: KeyVerifier, tickets: Tickets, blocks: Blocks, metrics: Metrics) -> None:
        self._verifier, self._tickets, self._blocks = verifier, tickets, blocks
        self._failures = metrics.auth_failures

    async def identify(self, scope: Scope, ticket: str = "") -> Identity:
        """Raises Unauthorized or Blocked; what it may do `permit` says."""
        try:
            identity = await (self._by_ticket(ticket) if ticket else self._verifier.verify(presented_key(scope)))
        except Unauthorized as error:
            self.refused(error.extra["reason"])
            raise
        self.admit(identity)
        scope["atp.key_prefix"] = identity.key_prefix
        return identity

    def admit(self, identity: Identity) -> None:
        """Raises Blocked while the key or its user is kept out."""
        try:
            self._blocks.check("key", identity.key_prefix)
            self._blocks.check("user", identity.user_id)
        except Blocked as error:
            self.refused(error.extra["reason"])
            raise

    def permit(self, identity: Identity, needed: str) -> None:
        """Raises Forbidden; after the request was charged, so that a key without the scope is limited too."""
        try:
            identity.require(needed)
        except Forbidden as error:
            self.refused(error.extra["reason"])
            raise

    async def again(self, identity: Identity) -> Identity:
        """As the key is known now: its limits may have changed since; mostly a look in memory."""
        return await self._verifier.verify_hash(identity.key_hash)

    def recognizes(self, scope: Scope, ticket: str = "") -> bool:
        """Whether it brings a key that this node knows to be good, without asking anybody."""
        try:
            return not ticket and self._verifier.remembers(presented_key(scope))
        except Unauthorized:
            return False

    def refused(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    async def _by_ticket(self, ticket: str) -> Identity:
        return await self._verifier.verify_hash(await self._tickets.redeem(ticket))


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
