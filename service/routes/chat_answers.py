"""What a chat is answered."""

from typing import NotRequired

from typing_extensions import TypedDict

from service.errors import NotFound, UpstreamError, UpstreamTimeout
from service.http.contract import answers
from service.http.openapi_parts import Problem
from service.routes.chat_requests import CachingHeader


class Usage(TypedDict):
    """In tokens; `estimated`: the model server did not tell."""

    input_tokens: int
    output_tokens: int
    estimated: bool


class AgentAnswer(TypedDict):
    """What one agent answered; or, among several, the problem why it did not."""

    agent: str
    model: str
    answer: NotRequired[str]
    finish_reason: NotRequired[str]
    cached: NotRequired[bool]
    usage: NotRequired[Usage]
    error: NotRequired[Problem]


class ChatAnswer(TypedDict):
    """One agent's."""

    id: str
    agent: str
    model: str
    answer: str
    finish_reason: str
    cached: bool
    usage: Usage


class ChatAnswers(TypedDict):
    """Several agents', side by side in the order asked; at least one of them answered."""

    id: str
    answers: list[AgentAnswer]
    usage: Usage


class BatchedAnswer(ChatAnswer):
    """`index` is the task's place among `requests`; `status` is 200."""

    index: int
    status: int


class BatchedAnswers(ChatAnswers):
    """The same of several agents."""

    index: int
    status: int


class BatchedProblem(TypedDict):
    """Why this task has no answer."""

    index: int
    status: int
    error: Problem


BatchedItem = BatchedAnswer | BatchedAnswers | BatchedProblem


class BatchAnswer(TypedDict):
    """In the order asked."""

    results: list[BatchedItem]


CACHE = ("X-Cache", "Age")

answers_chat = answers(
    ChatAnswer | ChatAnswers,
    media=("text/event-stream",),
    tells=CACHE,
    headers=CachingHeader,
    examples={
        "one agent": {"agent": "reasoning", "task": "What is the capital of France?"},
        "several agents": {"agents": ["coding", "writing"], "task": "What is the capital of France?"},
        "piece by piece": {"agent": "summary", "task": "What is the capital of France?", "stream": True},
    },
    errors=(NotFound, UpstreamError, UpstreamTimeout),
)
answers_batch = answers(
    BatchAnswer,
    headers=CachingHeader,
    examples={
        "two tasks": {
            "requests": [
                {"agent": "reasoning", "task": "What is the capital of France?"},
                {"agents": ["coding", "writing"], "task": "What is the capital of Peru?"},
            ]
        }
    },
)
