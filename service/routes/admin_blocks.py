"""`/api/admin/blocks`: keep a key, a user or an address out for a time, see who is kept out, let them in again."""

import re
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from service.admin.audit import Action, Actor, Audit
from service.errors import BadRequest, Invalid, NotFound
from service.http.contract import answers
from service.http.operation import Call
from service.keys.block_store import KINDS, BlockRow, Kind, Subject, delete_block, upsert_block
from service.keys.block_table import canonical, covers
from service.live.messages import Blocked
from service.routes.admin import actor, answer
from service.routes.admin_actions import Bus
from service.routes.admin_answers import BlockAnswer, BlockItem, BlocksPage, LiftedBlockAnswer
from service.routes.admin_requests import BLOCK_S, STRICT, Id, PageQuery, Reason, digest, fitted

KEY_PREFIX = re.compile(r"[0-9A-Za-z]{8}")
EXAMPLES = {
    "a network for an hour": {"kind": "address", "subject": "192.0.2.0/24", "for_s": 3600, "reason": "guesses keys"},
    "a user for a day": {"kind": "user", "subject": "usr_0123456789ab", "for_s": 86_400},
}


class BlockPath(BaseModel):
    """Who: the prefix of a key, a user's id, or an address or network, which gets its shortest form."""

    model_config = STRICT
    kind: Kind
    subject: Id

    @model_validator(mode="after")
    def is_of_its_kind(self) -> "BlockPath":
        if self.kind == "key" and not KEY_PREFIX.fullmatch(self.subject):
            raise ValueError("subject must be the 8 characters of a key's prefix")
        if self.kind == "address":
            try:
                self.subject = canonical(self.subject)
            except ValueError as error:
                raise ValueError(f"subject must be {error}") from None
        return self

    @property
    def who(self) -> Subject:
        return Subject(self.kind, self.subject)


class BlockRequest(BlockPath):
    for_s: Annotated[int, Field(ge=1, le=BLOCK_S)]
    reason: Reason = ""


class BlockPages(Protocol):
    """Where blocks are read from."""

    async def page(self, after: tuple[str, str], limit: int) -> list[BlockRow]:
        """Those in force behind (kind, subject); raises DatabaseUnavailable."""
        ...


class BlockRoutes:
    """Each change is audited first, in the transaction that makes it, then said on the bus."""

    def __init__(self, audit: Audit, bus: Bus, pages: BlockPages) -> None:
        self._audit, self._bus, self._pages = audit, bus, pages

    @answers(BlockAnswer, status=201, examples=EXAMPLES)
    async def create(self, call: Call[BlockRequest]) -> Response:
        """Keep a key, a user or an address out for a time; again: the latest word counts."""
        asked, by = call.body, actor(call)
        if concerns(asked.who, call):
            raise Invalid(f"You cannot block your own {asked.kind}: nobody could ask to be let in again.")
        details = asked.model_dump(include={"kind", "for_s", "reason"})
        action = Action(by, "block", asked.subject, details, body_digest=digest(asked))
        async with self._audit.recording(action) as (connection, recorded):
            until = await upsert_block(connection, asked.who, asked.for_s, asked.reason, by.user_id)
        said = await self._bus.publish(told(str(recorded.id), asked.who, until.timestamp(), asked.reason))
        made: BlockAnswer = {**summary(str(recorded.id), asked.who, said.degraded), "until": until.isoformat()}
        return answer(made, 201)

    @answers(BlocksPage, query=PageQuery)
    async def list_blocks(self, call: Call[None]) -> Response:
        """List who is kept out, page by page."""
        query = fitted(PageQuery, call.request.query_params)
        rows = await self._pages.page(place(query.cursor), query.limit + 1)
        shown = rows[: query.limit]
        more = len(rows) > query.limit
        cursor = f"{shown[-1].kind}:{shown[-1].subject}" if more else None
        return answer(BlocksPage(blocks=[described(row) for row in shown], next_cursor=cursor))

    @answers(LiftedBlockAnswer, segments=BlockPath, errors=(NotFound,))
    async def lift(self, call: Call[None]) -> Response:
        """Let them in again."""
        who = fitted(BlockPath, call.request.path_params).who
        async with self._audit.recording(lifting(actor(call), who)) as (connection, recorded):
            if not await delete_block(connection, who):
                raise NotFound(f"This {who.kind} is not blocked.")
        said = await self._bus.publish(told(str(recorded.id), who, 0))
        return answer(summary(str(recorded.id), who, said.degraded))


def concerns(who: Subject, call: Call[Any]) -> bool:
    """Whether it would keep the caller out."""
    if who.kind == "address":
        return covers(who.subject, call.request.scope["atp.caller"].address)
    return who.subject == (call.identity.key_prefix if who.kind == "key" else call.identity.user_id)


def lifting(by: Actor, who: Subject) -> Action:
    return Action(by, "lift_block", who.subject, {"kind": who.kind})


def told(message_id: str, who: Subject, until_s: float, reason: str = "") -> Blocked:
    return Blocked(id=message_id, blocked=who.kind, subject=who.subject, until_s=until_s, reason=reason)


def summary(action_id: str, who: Subject, degraded: bool) -> LiftedBlockAnswer:
    return {"id": action_id, "kind": who.kind, "subject": who.subject, "degraded": degraded}


def described(row: BlockRow) -> BlockItem:
    return {
        "kind": row.kind,
        "subject": row.subject,
        "until": row.until.isoformat(),
        "reason": row.reason,
        "blocked_by": row.blocked_by,
        "at": row.at.isoformat(),
    }


def place(cursor: str) -> tuple[str, str]:
    """From `kind:subject`, the last of a page; raises BadRequest."""
    kind, _, subject = cursor.partition(":")
    if cursor and kind not in KINDS:
        raise BadRequest("The cursor is none of ours.")
    return kind, subject
