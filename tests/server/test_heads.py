"""Heads that are taken as they are, and those that are left to h11."""

import h11
import pytest

from service.server.heads import checked, response

PLAIN = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"x-empty", b""), (b"etag", b'"a b\x7e"')]


def test_a_plain_head_is_what_h11_makes_of_it() -> None:
    ours, theirs = response(200, PLAIN), h11.Response(status_code=200, headers=PLAIN)
    assert (ours, ours.headers.raw_items()) == (theirs, theirs.headers.raw_items())
    assert checked(PLAIN) is not PLAIN


@pytest.mark.parametrize(
    "field",
    [
        (b"X-Upper", b"a"),
        (b"x-latin", b"\xe9"),
        (b"x-tab", b"a\tb"),
        (b"content-length", b"5, 5"),
        (b"transfer-encoding", b"Chunked"),
    ],
)
def test_what_is_allowed_but_not_plain_goes_the_way_of_h11(field: tuple[bytes, bytes]) -> None:
    fields = [(b"server", b"x"), field]
    assert checked(fields) is fields
    assert response(200, fields) == h11.Response(status_code=200, headers=fields)


@pytest.mark.parametrize(
    "field",
    [
        (b"x-split", b"a\r\nset-cookie: b"),
        (b"x-nul", b"\x00"),
        (b"x name", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"content-length", b"-1"),
        (b"content-length", b""),
        (b"content-length", b"9" * 30),
        (b"content-length", b"6"),
        (b"transfer-encoding", b"gzip"),
    ],
)
def test_what_must_not_be_sent_is_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(h11.LocalProtocolError):
        response(200, [*PLAIN, field])
