"""What administrators do to the fleet: each action is audited first, then said on the bus."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from service.admin.audit import Action, Actor, Audit, Recorded
from service.devices import Device
from service.errors import Invalid, NotFound
from service.keys.block_store import Subject, delete_block, upsert_block
from service.live.messages import DRAIN_WITHIN_S, AnyMessage, Blocked, Disconnect, Drain
from service.routes.admin_answers import BroadcastAnswer, DisconnectAnswer, DrainAnswer, LiftAnswer
from service.routes.admin_requests import BroadcastRequest, DisconnectRequest, digest
from service.routes.admin_stats import Answered


class Fleet(Protocol):
    """What is known of all nodes; of this one only where `degraded`."""

    async def sockets(self, users: list[str] | None = None, devices: list[Device] | None = None) -> Answered[int]: ...
    async def nodes(self) -> Answered[list[dict[str, Any]]]: ...


class OwnSockets(Protocol):
    def count(self, user_id: str, session_id: str | None) -> int:
        """How many of this node's sockets match."""
        ...


class Said(Protocol):
    @property
    def degraded(self) -> bool: ...


class Bus(Protocol):
    async def publish(self, message: AnyMessage) -> Said: ...


class AdminActions:
    """`node` is this node's name; `clock` gives Unix seconds.

    An answer is `degraded` when what it counts or what was done is, so far, of this node alone.
    """

    def __init__(
        self,
        node: str,
        audit: Audit,
        fleet: Fleet,
        own: OwnSockets,
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node, self._audit, self._fleet, self._own, self._bus, self._clock = node, audit, fleet, own, bus, clock

    async def broadcast(self, by: Actor, asked: BroadcastRequest, key: str | None) -> BroadcastAnswer:
        """Send a message; the same key again sends the same message again, with the id and the end it had.

        Nodes drop an id they have seen, so the repetition reaches only those that a crash had kept it from.

        Raises:
            Conflict: the key was used for another message.
            DatabaseUnavailable: it cannot be audited; nothing was sent.
        """
        found = await self._fleet.sockets(users=unique(asked.users), devices=unique(asked.devices))
        answer: BroadcastAnswer = {
            "id": None,
            "recipients": found.result,
            "audience": asked.audience,
            "dry_run": asked.dry_run,
            "degraded": found.degraded,
            "expires_at": None,
            "repeated": False,
        }
        if asked.dry_run:
            return answer
        recorded = await self._audit.record(self._broadcast_action(by, asked, key))
        expires_at_ms = recorded.details["expires_at_ms"]
        degraded = await self._say(asked.push(str(recorded.id), expires_at_ms))
        expires_at = datetime.fromtimestamp(expires_at_ms / 1000, UTC)
        answer["id"], answer["expires_at"] = str(recorded.id), expires_at.isoformat()
        answer["degraded"], answer["repeated"] = degraded or found.degraded, not recorded.first
        return answer

    def _broadcast_action(self, by: Actor, asked: BroadcastRequest, key: str | None) -> Action:
        """`data` is not kept, its digest is part of the body's."""
        expires_at_ms = int((self._clock() + asked.expires_s) * 1000)
        details = asked.model_dump(include={"message", "title", "users", "devices"}, exclude_none=True)
        return Action(by, "broadcast", asked.audience, details | {"expires_at_ms": expires_at_ms}, key, digest(asked))

    async def disconnect(self, by: Actor, user_id: str, asked: DisconnectRequest) -> DisconnectAnswer:
        """Close a user's sockets, or one; with `block_s` the block is in force before they are closed.

        Raises:
            DatabaseUnavailable: it cannot be audited; nothing was done.
        """
        if asked.block_s and user_id == by.user_id:
            raise Invalid("You cannot block yourself: nobody could ask to be let in again.")
        sockets, unsure = await self._matching(user_id, asked.session_id)
        answer: DisconnectAnswer = {
            "id": None,
            "user_id": user_id,
            "sockets": sockets,
            "blocked_until": None,
            "dry_run": asked.dry_run,
            "degraded": unsure,
        }
        if asked.dry_run:
            return answer
        recorded, until = await self._record_disconnect(by, user_id, asked)
        said: list[AnyMessage] = []
        if until:
            said.append(blocked(recorded, user_id, until.timestamp(), asked.reason))
        said.append(Disconnect(id=str(recorded.id), user_id=user_id, session_id=asked.session_id, reason=asked.reason))
        degraded = await self._say(*said)
        answer["id"], answer["degraded"] = str(recorded.id), degraded or unsure
        answer["blocked_until"] = until.isoformat() if until else None
        return answer

    async def _matching(self, user_id: str, session_id: str | None) -> tuple[int, bool]:
        """How many sockets it concerns, and whether only this node's are known.

        A session that is not on this node counts as one if its user is elsewhere.
        """
        if session_id and (here := self._own.count(user_id, session_id)):
            return here, False
        found = await self._fleet.sockets(users=[user_id])
        if session_id is None:
            return found.result, found.degraded
        elsewhere = found.result - self._own.count(user_id, None)
        return min(1, max(0, elsewhere)), found.degraded

    async def _record_disconnect(
        self, by: Actor, user_id: str, asked: DisconnectRequest
    ) -> tuple[Recorded, datetime | None]:
        details = asked.model_dump(include={"session_id", "reason", "block_s"}, exclude_none=True)
        action = Action(by, "disconnect", user_id, details, body_digest=digest(asked))
        async with self._audit.recording(action) as (connection, recorded):
            until = None
            if asked.block_s:
                until = await upsert_block(
                    connection, Subject("user", user_id), asked.block_s, asked.reason, by.user_id
                )
            return recorded, until

    async def lift_block(self, by: Actor, user_id: str) -> LiftAnswer:
        """Let a user in again.

        Raises:
            NotFound: no block is in force; nothing is left in the audit trail.
            DatabaseUnavailable: it cannot be audited; nothing was done.
        """
        async with self._audit.recording(Action(by, "lift_block", user_id, {})) as (connection, recorded):
            if not await delete_block(connection, Subject("user", user_id)):
                raise NotFound("This user is not blocked.")
        degraded = await self._say(blocked(recorded, user_id, 0))
        return {"id": str(recorded.id), "user_id": user_id, "degraded": degraded}

    async def drain(self, by: Actor, node: str | None, rate: float) -> DrainAnswer:
        """Ask a node to let its sockets go at `rate` a second; 0 ends it.

        Raises:
            NotFound: no node of that name has a card; while `degraded` only this node's is known.
            DatabaseUnavailable: it cannot be audited; nothing was said.
        """
        node = node or self._node
        await self._require_node(node)
        recorded = await self._audit.record(Action(by, "drain", node, {"rate": rate}))
        expires_at_ms = int((self._clock() + DRAIN_WITHIN_S) * 1000)
        degraded = await self._say(Drain(id=str(recorded.id), node=node, rate=rate, expires_at_ms=expires_at_ms))
        return {"id": str(recorded.id), "node": node, "rate": rate, "degraded": degraded}

    async def _require_node(self, node: str) -> None:
        if node == self._node:
            return  # it may not have handed in its card yet
        cards = await self._fleet.nodes()
        known = sorted(card["node"] for card in cards.result)
        if node not in known:
            raise NotFound("No such node is known.", known=known, degraded=cards.degraded)

    async def _say(self, *messages: AnyMessage) -> bool:
        """Publish in this order; whether one of them reached this node only."""
        said = [await self._bus.publish(message) for message in messages]
        return any(published.degraded for published in said)


def blocked(recorded: Recorded, user_id: str, until_s: float, reason: str = "") -> Blocked:
    """A message of its own id: the action's may be its Disconnect's, and nodes act on an id once."""
    return Blocked(id=f"{recorded.id}:block", subject=user_id, until_s=until_s, reason=reason)


def unique(values: list[Any] | None) -> list[Any] | None:
    """Named twice is counted once."""
    return list(dict.fromkeys(values)) if values else None
