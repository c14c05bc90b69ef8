"""Heads of answers, checked in less than half the time that h11 takes, which looks at every field twice."""

import re
from functools import lru_cache
from typing import NamedTuple

import h11
from h11._headers import Headers  # not public, and the only way past the checks; the version is pinned

Fields = list[tuple[bytes, bytes]]

NAME = re.compile(rb"[a-z0-9-]+")
PLAIN = re.compile(rb"[\x20-\x7e]*")
LENGTH = re.compile(rb"[0-9]{1,18}")
# Of an answer: they end the connection, change it, or stand elsewhere (h11 writes the host first).
CONNECTION = frozenset((b"connection", b"upgrade", b"host"))
# Sets of names that are remembered; the answers of one service have few.
SHAPES = 256


class Shape(NamedTuple):
    """Of a head's names: whether they are plain and frame the body at most once, by its length; where that stands; the
    same where the connection goes on as it is, else None."""

    plain: bool
    length_at: int | None
    whole_at: int | None


def response(status: int, fields: Fields) -> h11.Response:
    """Names in lower case and plain values are taken as they are; all else is left to h11, which raises
    LocalProtocolError for what must not be sent. Values have been stripped, by hypercorn."""
    return h11.Response(headers=checked(fields), status_code=status)


def checked(fields: Fields) -> Headers | Fields:
    plain, length_at, _ = shape(tuple([name for name, _ in fields]))
    if not (plain and PLAIN.fullmatch(b"".join([value for _, value in fields]))):
        return fields
    if length_at is not None and not LENGTH.fullmatch(fields[length_at][1]):
        return fields
    return Headers([(name, name, value) for name, value in fields])


@lru_cache(SHAPES)
def shape(names: tuple[bytes, ...]) -> Shape:
    lengths = [at for at, name in enumerate(names) if name == b"content-length"]
    plain = all(NAME.fullmatch(name) and name != b"transfer-encoding" for name in names) and len(lengths) < 2
    length_at = lengths[0] if lengths else None
    return Shape(plain, length_at, length_at if plain and not CONNECTION.intersection(names) else None)
