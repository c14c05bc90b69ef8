"""Several agents side by side: failures in their place, bugs that do not hang, models that are let go."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

from service.agents.messages import Answer, Delta, Tokens
from service.agents.parallel import complete_all, stream_all
from service.errors import AtpError, UpstreamError
from tests.waiting import eventually


class ScriptedRunner:
    """Answers by the agent's name; knows how many streams are open."""

    def __init__(self) -> None:
        self.open = 0

    async def complete(self, question: Any) -> Answer:
        if question.agent.id == "fails":
            raise UpstreamError("no")
        return Answer(question.agent.id, Tokens(1, 1), "stop")

    async def stream(self, question: Any) -> AsyncGenerator[Delta | Answer, None]:
        self.open += 1
        try:
            yield Delta("a")
            if question.agent.id == "fails":
                raise UpstreamError("no")
            if question.agent.id == "bug":
                raise ZeroDivisionError
            if question.agent.id == "waits":
                await asyncio.sleep(60)
            yield Answer("a", Tokens(1, 1), "stop")
        finally:
            self.open -= 1


def questions(*names: str) -> Any:
    return [SimpleNamespace(agent=SimpleNamespace(id=name)) for name in names]


async def test_answers_come_in_the_order_asked_with_the_failure_in_its_place() -> None:
    runner: Any = ScriptedRunner()
    outcomes = await complete_all(runner, questions("one", "fails", "two"))
    assert [outcome.question.agent.id for outcome in outcomes] == ["one", "fails", "two"]
    assert [type(outcome.item) for outcome in outcomes] == [Answer, UpstreamError, Answer]


async def test_a_bug_in_one_stream_ends_it_as_an_error_and_not_as_a_hang() -> None:
    runner: Any = ScriptedRunner()
    async with asyncio.timeout(2):
        ends = {o.question.agent.id: o.item async for o in stream_all(runner, questions("one", "bug", "fails"))}
    assert type(ends["one"]) is Answer
    assert type(ends["bug"]) is AtpError
    assert type(ends["fails"]) is UpstreamError


async def test_closing_the_stream_lets_every_model_go() -> None:
    runner: Any = ScriptedRunner()
    stream = stream_all(runner, questions("waits", "one", "waits"))
    await anext(stream)
    await eventually(lambda: runner.open >= 2)
    await stream.aclose()
    assert runner.open == 0
