"""Server-sent events of model servers, however the network cuts them."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.agents.sse import LINE_BYTES, data_lines
from service.errors import UpstreamError

STREAM = b': comment\n\nevent: x\ndata: {"a": 1}\n\ndata:{"b": 2}\r\n\r\nid: 7\ndata: [DONE]\n\n'


async def cut(stream: bytes, places: list[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    for start, stop in itertools.pairwise(edges):
        yield stream[start:stop]


@given(st.lists(st.integers(0, 1000), max_size=12))
async def test_the_cuts_of_the_network_change_nothing(places: list[int]) -> None:
    lines = [line async for line in data_lines(cut(STREAM, places))]
    assert lines == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


async def test_a_line_without_end_is_refused() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (LINE_BYTES // 4)

    with pytest.raises(UpstreamError, match="a line without end"):
        _ = [line async for line in data_lines(endless())]
