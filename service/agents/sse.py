"""Server-sent events, as far as model servers use them: the data of each event (WHATWG HTML, section 9.2.6)."""

from collections.abc import AsyncIterator

from service.errors import UpstreamError

# A line that never ends must not be gathered for ever.
LINE_BYTES = 1_000_000


async def data_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The payload of each `data:` line, whatever the network's cuts; comments and other fields are skipped.

    Model servers put one JSON document on one data line, so lines of one event are not joined.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES:
            raise UpstreamError("The model server sent a line without end.")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
