"""Pages of a list, the newest first: a cursor is the place of the last row shown, so rows that come shift none."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from service.errors import Invalid

Row = TypeVar("Row")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 17 digits of microseconds reach the year 5138, which a datetime can hold.
CURSOR = re.compile(r"(\d{1,17})-([^\0]{1,128})", re.ASCII)


@dataclass(frozen=True)
class Place:
    """A row's moment of creation and its id or prefix, which tells those of one moment apart."""

    at: datetime
    name: str

    def __str__(self) -> str:
        return f"{(self.at - EPOCH) // timedelta(microseconds=1)}-{self.name}"

    @classmethod
    def parse(cls, cursor: str) -> "Place | None":
        """None for the beginning; raises Invalid for what is no cursor of ours."""
        if not cursor:
            return None
        if not (found := CURSOR.fullmatch(cursor)):
            raise Invalid(errors=[{"field": "cursor", "message": "is none that a page ended with"}])
        return cls(EPOCH + timedelta(microseconds=int(found[1])), found[2])


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows, and the cursor to go on with; None at the end."""

    rows: list[Row]
    next_cursor: str | None

    @classmethod
    def of(cls, rows: list[Row], limit: int, place: Callable[[Row], Place]) -> "Page[Row]":
        """From up to `limit` + 1 rows: the one too many tells that there are more."""
        shown = rows[:limit]
        return cls(shown, str(place(shown[-1])) if len(rows) > limit else None)
