"""A collector that accepts every trace over OTLP/HTTP and counts the spans.

Run: python -m bench.otlp_sink 4318
POST /v1/traces   200; the body is kept for the count
GET  /spans       how many spans came since the last look, as JSON
"""

import asyncio
import contextlib
import json
import re
import signal
import sys
from typing import Any

import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Sink(asyncio.Protocol):
    """One connection of an exporter, or of the bench that asks for the count."""

    exports: list[bytes] = []  # noqa: RUF012 - shared on purpose

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        declared = CONTENT_LENGTH.search(self._received, 0, end)
        length = int(declared[1]) if declared else 0
        if len(self._received) < end + length:
            return
        body = bytes(self._received[end : end + length])
        is_export = self._received.startswith(b"POST")
        del self._received[: end + length]
        self._answer(b"" if is_export else self._count())
        if is_export:
            self.exports.append(body)

    def _count(self) -> bytes:
        """Parsed only when asked for: while it is measured, the sink shall cost its core little."""
        bodies = list(self.exports)
        self.exports.clear()
        return json.dumps({"exports": len(bodies), "spans": sum(map(spans, bodies))}).encode()

    def _answer(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def spans(body: bytes) -> int:
    export = ExportTraceServiceRequest.FromString(body)
    return sum(len(scope.spans) for resource in export.resource_spans for scope in resource.scope_spans)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Sink, "127.0.0.1", port)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(int(sys.argv[1])))
