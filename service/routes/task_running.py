"""A task answered as the chat that it is: with its key's rights as they are now, and a usage row of its own."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from service.agents.parallel import Outcome
from service.keys.blocks import Blocks
from service.keys.verifier import KeyVerifier
from service.routes.answering import Answering
from service.routes.chat_requests import ChatRequest
from service.routes.chats import Caller, Chat
from service.tasks.pieces import Piece, Pieces
from service.tasks.records import Task

TellPiece = Callable[[Task, Piece], Awaitable[None]]


class TaskRunning:
    """`ask` is what a worker does with a task. `tell_piece` raises nothing."""

    def __init__(self, answering: Answering, verifier: KeyVerifier, blocks: Blocks, tell_piece: TellPiece) -> None:
        self._answering, self._verifier, self._blocks = answering, verifier, blocks
        self._tell_piece = tell_piece

    async def ask(self, task: Task) -> dict[str, Any]:
        """The answer, as `POST /api/v1/chat` gives it; raises AtpError, Unauthorized where the key has ended."""
        identity = await self._verifier.verify_hash(task.key_hash)
        identity.require("chat")
        self._blocks.check("key", identity.key_prefix)
        self._blocks.check("user", identity.user_id)
        asked = ChatRequest.model_validate(task.request)
        chat = await self._answering.begin(Caller(identity, task.request_id), asked)
        complete = partial(self._aloud, task) if asked.stream else self._answering.complete
        outcomes = await self._answering.recall(chat) or await complete(chat)
        chat.raise_if_all_failed()
        return cast(dict[str, Any], chat.whole(outcomes))

    async def _aloud(self, task: Task, chat: Chat) -> list[Outcome]:
        async with Pieces(partial(self._tell_piece, task)) as pieces:
            return await self._answering.complete_aloud(chat, pieces.add)
