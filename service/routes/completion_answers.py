"""What OpenAI's API answers: the objects of its reference, as far as they are said here."""

from typing import Literal

from typing_extensions import TypedDict

from service.errors import NotFound, UpstreamError, UpstreamTimeout
from service.http.contract import answers
from service.routes.chat_requests import CachingHeader


class Said(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(TypedDict):
    index: int
    message: Said
    logprobs: None
    finish_reason: str


class CompletionUsage(TypedDict):
    """In tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Head(TypedDict):
    """What a completion and each of its chunks begin with; `created` in Unix seconds."""

    id: str
    created: int
    model: str


class Completion(Head):
    object: Literal["chat.completion"]
    choices: list[Choice]
    usage: CompletionUsage


class OpenAIModel(TypedDict):
    """`created` is 0, 1970: when it was is not known."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(TypedDict):
    object: Literal["list"]
    data: list[OpenAIModel]


answers_completion = answers(
    Completion,
    media=("text/event-stream",),
    tells=("X-Cache", "Age"),
    headers=CachingHeader,
    examples={
        "an agent": {
            "model": "agent:reasoning",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        },
        "piece by piece": {
            "model": "agent:summary",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
    errors=(NotFound, UpstreamError, UpstreamTimeout),
)
