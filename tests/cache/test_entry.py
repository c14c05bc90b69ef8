"""The envelope: whatever happens to its bytes, what comes out is the entry that went in, or nothing."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from service.cache.entry import Entry, digest, pack, unpack

moments = st.integers(0, 2**63)
entries = st.builds(
    Entry,
    value=st.binary(max_size=200),
    ttl_s=st.integers(0, 10**6).map(float),
    begun_ms=moments,
    stored_ms=moments,
    groups=st.lists(st.sampled_from(["sound", "coding-2", "x"]), max_size=3).map(tuple),
)


@given(entries)
def test_what_is_packed_comes_out_the_same(entry: Entry) -> None:
    assert unpack("name", pack("name", entry)) == entry


@given(entries, st.data())
def test_what_is_cut_off_anywhere_is_nothing(entry: Entry, data: st.DataObject) -> None:
    packed = pack("name", entry)
    assert unpack("name", packed[: data.draw(st.integers(0, len(packed) - 1))]) is None


@given(entries, st.data())
def test_a_changed_byte_makes_it_nothing(entry: Entry, data: st.DataObject) -> None:
    packed = bytearray(pack("name", entry))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    assert unpack("name", bytes(packed)) is None


@given(st.binary(max_size=300))
def test_any_other_bytes_are_nothing(data: bytes) -> None:
    assert unpack("name", data) is None


@given(entries, st.binary(min_size=1, max_size=20))
def test_bytes_after_the_end_make_it_nothing(entry: Entry, more: bytes) -> None:
    assert unpack("name", pack("name", entry) + more) is None


@given(entries)
def test_under_another_name_it_is_nothing(entry: Entry) -> None:
    assert unpack("other", pack("name", entry)) is None


def test_a_digest_tells_its_parts_apart_and_not_the_order_of_fields() -> None:
    assert len(digest("a")) == 64
    assert digest("a", "b") != digest("ab") != digest(["a", "b"])
    assert digest(1) != digest("1") != digest(True)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError):
        digest(b"bytes")
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))
