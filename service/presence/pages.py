"""Cursors of the list of who is online: `<shard>.<cursor of HSCAN>` in Redis, `m.<last user>` in memory.

A client may be in the middle of the list when Redis goes or comes back: a cursor of the other store begins anew, which
the list allows, since it may say a user twice.
"""

import re

from service.errors import BadRequest

REDIS = re.compile(r"(\d{1,5})\.(\d{1,20})", re.ASCII)
MEMORY = re.compile(r"m\.(.{1,128})", re.DOTALL)
HSCAN_CURSORS = 2**64
LIMIT_MAX = 1000


def redis_place(cursor: str, shards: int) -> tuple[int, int]:
    """Shard and HSCAN cursor to go on from. Raises BadRequest."""
    found = REDIS.fullmatch(cursor)
    if not found:
        return begin_anew(cursor, MEMORY)
    shard, place = int(found[1]), int(found[2])
    if shard >= shards or place >= HSCAN_CURSORS:
        raise BadRequest("cursor is not one that this list gave out.")
    return shard, place


def memory_place(cursor: str) -> str:
    """The user after whom to go on. Raises BadRequest."""
    found = MEMORY.fullmatch(cursor)
    if not found:
        begin_anew(cursor, REDIS)
        return ""
    return found[1]


def begin_anew(cursor: str, other: re.Pattern[str]) -> tuple[int, int]:
    if cursor and not other.fullmatch(cursor):
        raise BadRequest("cursor is not one that this list gave out.")
    return 0, 0


def check_limit(limit: int) -> None:
    if not 0 < limit <= LIMIT_MAX:
        raise BadRequest(f"limit must be 1 to {LIMIT_MAX}.")
