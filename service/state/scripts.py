"""Lua scripts by their digest (EVALSHA), loaded again when the server has lost them (a restart, a new primary)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from service.state.redis import Client


class Script:
    """One `.lua` file. All its keys must share a hash tag."""

    def __init__(self, file: Path) -> None:
        self.text = file.read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def call(self, client: Client, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *arguments)

    async def call_each(self, client: Client, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Several calls in one round trip, each (keys, arguments); in a cluster, one for each of its servers."""
        if len(calls) == 1:
            return [await self.call(client, *calls[0])]
        answers = await self._pipelined(client, calls)
        lost = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        for at in lost:  # the first of a server loads it
            answers[at] = await self.call(client, *calls[at])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _pipelined(self, client: Client, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipeline:
            for keys, arguments in calls:
                # As a plain command: the cluster's pipeline has no evalsha, though it routes one by its keys.
                pipeline.execute_command("EVALSHA", self.sha, len(keys), *keys, *arguments)
            return list(await pipeline.execute(raise_on_error=False))
