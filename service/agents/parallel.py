"""Several agents side by side: one that fails is reported in its place and does not spoil the others."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol

import structlog

from service.agents.messages import Answer, Delta, Item, Tokens
from service.agents.runner import Question
from service.background import end
from service.errors import AtpError

# Pieces of answers that wait for a slow reader before the models are made to wait.
QUEUE_ITEMS = 64


class Outcome(NamedTuple):
    """What became of one question, or the next piece of it."""

    question: Question
    item: Item | AtpError


class Asker(Protocol):
    """Whoever answers questions: the runner, or what stands before it. Those that wait raise AtpError."""

    def known(self, question: Question) -> Answer | None:
        """The answer, if it need not be asked for."""
        ...

    def due(self, question: Question) -> Tokens | None:
        """What a call that was left early cost, where that need not be estimated."""
        ...

    async def complete(self, question: Question) -> Answer: ...

    def stream(self, question: Question) -> AsyncGenerator[Item, None]: ...


async def complete_all(
    asker: Asker, questions: Sequence[Question], seen: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Ask all at once; in the order of the questions, each with its Answer or AtpError."""
    if len(questions) == 1:
        return [await attempt(asker, questions[0], seen)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(asker, question, seen)) for question in questions]
    return [task.result() for task in tasks]


async def attempt(asker: Asker, question: Question, seen: Callable[[Outcome], None]) -> Outcome:
    try:
        outcome = Outcome(question, await asker.complete(question))
    except AtpError as error:
        outcome = Outcome(question, error)
    seen(outcome)  # at once: the others may never end
    return outcome


def stream_all(asker: Asker, questions: Sequence[Question]) -> AsyncGenerator[Outcome, None]:
    """The pieces of all answers as they come; each question's last Outcome is its Answer or AtpError."""
    return stream_one(asker, questions[0]) if len(questions) == 1 else stream_merged(asker, questions)


async def stream_merged(asker: Asker, questions: Sequence[Question]) -> AsyncGenerator[Outcome, None]:
    queue: asyncio.Queue[Outcome] = asyncio.Queue(QUEUE_ITEMS)
    # Not a TaskGroup: it may not span a yield, where a closed generator could leave it in another task.
    tasks = [asyncio.create_task(pump(asker, question, queue)) for question in questions]
    try:
        unfinished = len(tasks)
        while unfinished:
            outcome = await queue.get()
            unfinished -= not isinstance(outcome.item, Delta)
            yield outcome
    finally:
        await end(*tasks)


async def stream_one(asker: Asker, question: Question) -> AsyncGenerator[Outcome, None]:
    try:
        async with aclosing(asker.stream(question)) as items:
            async for item in items:
                yield Outcome(question, item)
    except AtpError as error:
        yield Outcome(question, error)


async def pump(asker: Asker, question: Question, queue: asyncio.Queue[Outcome]) -> None:
    try:
        async with aclosing(stream_one(asker, question)) as outcomes:
            async for outcome in outcomes:
                await queue.put(outcome)
    except Exception as error:  # noqa: BLE001 - a bug in one stream must end it, or its reader waits for ever
        structlog.get_logger().error("agent.stream_failed", agent=question.agent.id, exc_info=error)
        await queue.put(Outcome(question, AtpError()))
