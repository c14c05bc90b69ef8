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
