"""A task answered as the chat that it is: with its key's rights as they are now, and a usage row of its own."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from opentelemetry.trace import SpanKind, StatusCode, Tracer

from service.agents.parallel import Outcome
from service.errors import AtpError
from service.keys.blocks import Blocks
from service.keys.verifier import KeyVerifier
from service.routes.answering import Answering
from service.routes.chat_requests import ChatRequest
from service.routes.chats import Caller, Chat
from service.tasks.pieces import Piece, Pieces
from service.tasks.records import Task
from service.tasks.store import QUEUE
from service.tasks.traces import linked

TellPiece = Callable[[Task, Piece], Awaitable[None]]


class TaskRunning:
    """`ask` is what a worker does with a task. `tell_piece` raises nothing."""

    def __init__(
        self, answering: Answering, verifier: KeyVerifier, blocks: Blocks, tracer: Tracer, tell_piece: TellPiece
    ) -> None:
        self._answering, self._verifier, self._blocks, self._tracer = answering, verifier, blocks, tracer
        self._tell_piece = tell_piece

    async def ask(self, task: Task) -> dict[str, Any]:
        """The answer, as `POST /api/v1/chat` gives it; raises AtpError, Unauthorized where the key has ended."""
        with self._traced(task):
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

    @contextmanager
    def _traced(self, task: Task) -> Iterator[None]:
        """A span by OpenTelemetry's messaging conventions. Of an error it has the code only: what caused it may quote
        what was asked."""
        with self._tracer.start_as_current_span(
            f"process {QUEUE}",
            kind=SpanKind.CONSUMER,
            links=linked(task),
            attributes=about(task),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                code = error.code if isinstance(error, AtpError) else AtpError.code
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", code)
                raise


def about(task: Task) -> dict[str, str | int]:
    return {
        "messaging.system": "procrastinate",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": QUEUE,
        "messaging.message.id": str(task.id),
        "atp.task_attempt": task.attempt,
    }
