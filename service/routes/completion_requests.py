"""What OpenAI's "Create chat completion" may ask here (OpenAI API reference, chat completions).

Fields that would change the answer and that ATP cannot honour are refused by name, never ignored; those that concern
OpenAI's own bookkeeping are taken and have no effect.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.agents.catalogue import Parameters, ReasoningEffort, Verbosity
from service.agents.messages import Message, Role
from service.routes.admin_requests import STRICT

MAX_MESSAGES = 1000
Json = dict[str, Any]
Text = Annotated[str, Field(max_length=400_000)]
# Refused unless absent, null, or the value that asks for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


def with_the_rest(schema: Json) -> None:
    """Into the JSON Schema: the fields that only `only_what_can_be_honoured` knows."""
    for name, harmless in UNSUPPORTED.items():
        schema["properties"][name] = {"enum": [*harmless, None], "description": "Not supported: nothing else is taken."}
    for name in sorted(WITHOUT_EFFECT):
        schema["properties"][name] = {"description": "Taken, without effect."}


def is_one_of(value: Any, harmless: tuple[Any, ...]) -> bool:
    """By JSON's equality, where true is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in harmless)


class TextPart(BaseModel):
    model_config = STRICT
    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """`developer` is what newer clients call `system`."""

    model_config = STRICT
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=100)]
    name: Annotated[str | None, Field(max_length=64)] = None
    refusal: None = None

    def message(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role, text, self.name or "")


class StreamOptions(BaseModel):
    model_config = STRICT
    include_usage: bool = False
    include_obfuscation: bool = False


class CompletionRequest(BaseModel):
    """A conversation to go on with. `model` is a model of `GET /v1/models`, or `agent:<id>`."""

    model_config = STRICT | ConfigDict(json_schema_extra=with_the_rest)
    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=4)]
        | None
    ) = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Verbosity | None = None

    @model_validator(mode="before")
    @classmethod
    def only_what_can_be_honoured(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        for name, harmless in UNSUPPORTED.items():
            if fields.get(name) is not None and not is_one_of(fields[name], harmless):
                raise ValueError(f"{name} is not supported here")
        return {name: value for name, value in fields.items() if name not in UNSUPPORTED and name not in WITHOUT_EFFECT}

    @model_validator(mode="after")
    def options_go_with_a_stream(self) -> "CompletionRequest":
        if self.stream_options and not self.stream:
            raise ValueError("stream_options go with stream only")
        return self

    def parameters(self) -> Parameters:
        return Parameters(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop,
            seed=self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            reasoning_effort=self.reasoning_effort,
            verbosity=self.verbosity,
        )

    def conversation(self) -> list[Message]:
        return [message.message() for message in self.messages]


def has_context(messages: Sequence[Message]) -> bool:
    """Whether it is more than one question: then its answer is nobody else's."""
    return len(messages) > 1 or messages[0].role != "user"
