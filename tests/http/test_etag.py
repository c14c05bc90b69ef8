"""Conditional requests (RFC 9110 section 13.1.2)."""

import pytest
from starlette.requests import Request

from service.http.etag import entity_tag, has_already, unless_known

TAG = '"ba7816bf8f01cfea414140de5dae2223"'  # of b"abc": the first half of its SHA-256, as FIPS 180-2 has it


def request(*if_none_match: str) -> Request:
    headers = [(b"if-none-match", value.encode("latin-1")) for value in if_none_match]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


def test_the_tag_is_strong_and_of_the_body() -> None:
    assert entity_tag(b"abc") == TAG


@pytest.mark.parametrize(
    "sent",
    [TAG, f"W/{TAG}", f'"other", {TAG}', f'"a,b" , W/"x",{TAG}', "*", " * "],
    ids=["same", "weak", "list", "commas", "any", "blanks"],
)
def test_a_client_that_has_it_is_told_so(sent: str) -> None:
    assert has_already(request(sent), TAG)


def test_a_list_over_two_headers_is_one_list() -> None:
    assert has_already(request('"other"', TAG), TAG)


@pytest.mark.parametrize(
    "sent",
    ["", '"other"', TAG.strip('"'), TAG[:-1], f'"{TAG.strip(chr(34))}x"', "W/", '"*"', ","],
    ids=["empty", "other", "unquoted", "unclosed", "longer", "only weak", "quoted star", "comma"],
)
def test_a_client_that_has_another_gets_it(sent: str) -> None:
    assert not has_already(request(sent), TAG)


def test_without_the_header_it_is_sent() -> None:
    assert not has_already(request(), TAG)


def test_both_answers_tell_caches_the_same() -> None:
    policy = {"cache-control": "max-age=60", "vary": "X-API-Key"}
    whole = unless_known(request(), b"abc", TAG, policy)
    known = unless_known(request(TAG), b"abc", TAG, policy)
    assert (whole.status_code, whole.body) == (200, b"abc")
    assert (known.status_code, known.body) == (304, b"")
    for response in (whole, known):
        assert response.headers["etag"] == TAG
        assert response.headers["cache-control"] == "max-age=60"
        assert response.headers["vary"] == "X-API-Key"
    assert "content-type" not in known.headers
    assert "content-length" not in known.headers
