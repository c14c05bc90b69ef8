"""A TCP proxy of one test's own, so that one node can lose a server which the others keep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

HOST = "127.0.0.1"


class Proxy:
    """Passes bytes on until told otherwise; new connections share the fate of the old."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut = False
        self.port = 0
        self.swallowing = False  # requests arrive, answers do not

    @property
    def url(self) -> str:
        """The target's URL through here."""
        credentials, _, _ = self._target.netloc.rpartition("@")
        return self._target._replace(netloc=f"{credentials}@{HOST}:{self.port}").geturl()

    def cut(self) -> None:
        """Reset every connection, and new ones at once."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def stall(self) -> None:
        """Connections stay open, and nothing passes."""
        self._flowing.clear()

    def mend(self) -> None:
        self._cut = self.swallowing = False
        self._flowing.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        their_reader, their_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        both = {writer, their_writer}
        if self._cut:  # meanwhile: a connection that slipped through would last as long as the outage
            for end in both:
                end.transport.abort()
            return
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, their_writer, False), self._pump(their_reader, writer, True))
        except OSError:
            pass  # cut
        finally:
            for end in both:
                end.transport.abort()
            self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            if not (answers and self.swallowing):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def close(self) -> None:
        self.mend()
        self.cut()


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of a URL `scheme://:password@host:port/…`."""
    proxy = Proxy(target)
    async with await asyncio.start_server(proxy.accept, HOST, 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        proxy.close()
