"""Who may open a socket: every check before the handshake of `GET /ws/session` is answered."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanContext
from starlette.datastructures import Headers
from starlette.websockets import WebSocket

from service.devices import device_of
from service.errors import Forbidden, Invalid, Unavailable
from service.http.ratelimit import Gate
from service.keys.verifier import Identity
from service.live.bus_entries import Seq
from service.live.hub import Hub
from service.live.socket import Guest

SCOPE, POLICY = "chat", "api"
ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who may come in: as whom, for the hub; and which trace the handshake belongs to."""

    identity: Identity
    guest: Guest
    client_id: str
    handshake: SpanContext


class Admission:
    """`origins` are the foreign pages that may open sockets."""

    def __init__(self, gate: Gate, hub: Hub, origins: Sequence[str]) -> None:
        self._gate, self._hub, self._origins = gate, hub, frozenset(origins)

    async def admit(self, websocket: WebSocket, span: Span) -> Visit:
        """1. Is the node open? 2. Is the page allowed? 3. Is the request sane? 4. Whose is it?

        Raises:
            Unavailable, Forbidden, BadRequest, Invalid, Unauthorized, Blocked, RateLimited.
        """
        if self._hub.draining:
            raise Unavailable("This node is about to stop; connect again.", reason="draining")
        if not self._allows(websocket.headers):
            self._gate.refused("origin")
            raise Forbidden("Pages of this origin may not open sockets here.", reason="origin")
        query = websocket.query_params
        last_seq, client_id = query.get("last_seq", ""), query.get("client_id", "")
        check(last_seq, client_id)
        identity = await self._gate.enter(websocket.scope, SCOPE, POLICY, query.get("ticket", ""))
        caller = websocket.scope["atp.caller"]
        guest = Guest(
            session_id=secrets.token_hex(8),
            user_id=identity.user_id,
            key_hash=identity.key_hash,
            device=device_of(query.get("device", ""), websocket.headers.get("user-agent", "")),
            address=caller.group,
            last_seq=last_seq,
            key_prefix=identity.key_prefix,
            ip=caller.address,
            key_ends_at=identity.ends_at,
        )
        return Visit(identity, guest, client_id or guest.session_id, span.get_span_context())

    def _allows(self, headers: Headers) -> bool:
        """A program sends no Origin; a page served by this very host needs no permission (RFC 6455, 10.2)."""
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        return origin.partition("://")[2] == headers.get("host")


def check(last_seq: str, client_id: str) -> None:
    """Raises BadRequest or Invalid."""
    if last_seq:
        Seq.parse(last_seq)
    if len(client_id) > ID_CHARACTERS or not client_id.isprintable():
        raise Invalid(f"client_id must be at most {ID_CHARACTERS} printable characters.")
