"""The token's format: what is ours, and that nothing else is."""

import math
import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from service.keys import token

KNOWN = "atp_live_AbCd1234_" + "0" * 33


def test_a_minted_token_has_the_documented_shape() -> None:
    minted = token.mint()
    assert re.fullmatch(r"atp_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{39}", minted.text)
    assert minted.text[9:17] == minted.prefix
    assert token.well_formed(minted.text)
    assert len(minted.digest) == 32


def test_the_secret_has_at_least_192_bits() -> None:
    assert math.log2(62) * token.SECRET_CHARACTERS > 192


def test_two_tokens_differ() -> None:
    assert len({token.mint().text for _ in range(1000)}) == 1000


def test_the_checksum_is_the_crc32_of_what_stands_before_it() -> None:
    assert zlib.crc32(KNOWN.encode()) == 3 * 62**5 + 18 * 62**4 + 33 * 62**3 + 12 * 62**2 + 1 * 62 + 56
    assert token.checksum(KNOWN) == "3IXC1u"
    assert token.well_formed(KNOWN + "3IXC1u")


@given(st.integers(9, 55), st.sampled_from(token.ALPHABET))
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    good = KNOWN + token.checksum(KNOWN)
    wrong = good[:position] + character + good[position + 1 :]
    assert token.well_formed(wrong) == (wrong == good)


@given(st.text(max_size=80))
def test_other_text_is_never_ours(text: str) -> None:
    assert not token.well_formed(text)
