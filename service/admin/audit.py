"""The audit trail: the row is committed before the deed, and a deed that cannot be audited is refused."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from service.admin import store
from service.admin.store import AuditRow, Connection
from service.db.pool import Database
from service.errors import Conflict

# RFC 9562 section 5.5 wants a namespace for ids made from names; any UUID of ours will do, and it may never change.
NAMESPACE = uuid.UUID("5f0a3a52-6f0b-4c53-9d0c-2a1d6c1a9b7e")


@dataclass(frozen=True)
class Actor:
    """Who asks: the user, the key's public prefix, and the request."""

    user_id: str
    key_prefix: str
    request_id: str


@dataclass(frozen=True)
class Action:
    """What is asked. `details` is kept as JSON, so its texts may hold no NUL; `body_digest` is a SHA-256."""

    by: Actor
    action: str
    target: str
    details: dict[str, Any]
    idempotency_key: str | None = None
    body_digest: bytes | None = None

    def row(self) -> AuditRow:
        """With an Idempotency-Key the id is made from it (UUID version 5), so that a retry has the same one."""
        by, key = self.by, self.idempotency_key
        # No id of a user and no key holds a line break, so no two pairs look alike.
        own = uuid.uuid4() if key is None else uuid.uuid5(NAMESPACE, f"{by.user_id}\n{key}")
        about = (by.user_id, by.key_prefix, self.action, self.target, self.details, by.request_id)
        return AuditRow(own, *about, key, self.body_digest)


@dataclass(frozen=True)
class Recorded:
    """The row as it stands in the trail; `first` is False where an earlier request had put it there."""

    id: uuid.UUID
    details: dict[str, Any]
    first: bool


class Audit:
    """Writes the trail. Record an action first, then do it; where that is SQL too, do it in the same transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def record(self, action: Action) -> Recorded:
        """Return once the row is committed.

        Raises:
            Conflict: the Idempotency-Key was used for another action or body.
            DatabaseUnavailable: it cannot be recorded, so it must not be done.
        """
        async with self.recording(action) as (_, recorded):
            return recorded

    @asynccontextmanager
    async def recording(self, action: Action) -> AsyncIterator[tuple[Connection, Recorded]]:
        """The transaction in which the row was written: both are committed, or neither; raises as `record`.

        With `first` False an earlier request has done what goes with the row.
        """
        row = action.row()
        async with self._db.connection("insert_admin_audit") as connection:
            if await store.insert_action(connection, row):
                yield connection, Recorded(row.id, row.details, first=True)
            else:
                yield connection, await stored(connection, row)


async def stored(connection: Connection, row: AuditRow) -> Recorded:
    """The row that an earlier request with this Idempotency-Key left; raises Conflict when it asked something else."""
    found = await store.select_action(connection, row.user_id, row.idempotency_key or "")
    if found is None or (found.action, found.body_digest) != (row.action, row.body_digest):
        raise Conflict("This Idempotency-Key was used with another body.")
    return Recorded(found.id, found.details, first=False)
