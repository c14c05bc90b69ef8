"""What goes to a model and what comes back: the words that the runner and every provider share."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from service.agents.catalogue import Model, Parameters

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """`name` tells participants of one role apart; empty: not said."""

    role: Role
    content: str
    name: str = ""

    def document(self) -> dict[str, str]:
        """As OpenAI's API has it."""
        named = {"name": self.name} if self.name else {}
        return {"role": self.role, "content": self.content, **named}


class Prompt(NamedTuple):
    """One call to a model."""

    model: Model
    messages: tuple[Message, ...]
    parameters: Parameters


@dataclass(frozen=True)
class Tokens:
    """Tokens of one call; `estimated` where the server did not count them (about four characters each)."""

    input: int = 0
    output: int = 0
    estimated: bool = False

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input + other.input, self.output + other.output, self.estimated or other.estimated)


class Answer(NamedTuple):
    """A whole answer. `finish_reason` is the server's: stop, length, content_filter… `model`: by the server's own word;
    empty where it gave none.

    `age_s` is None for one that was just given, else for how long it has been known: its tokens are 0, for nothing was
    asked of a model.
    """

    text: str
    tokens: Tokens
    finish_reason: str
    age_s: float | None = None
    model: str = ""


class Delta(NamedTuple):
    """The next piece of a streamed answer; `age_s` as in Answer."""

    text: str
    age_s: float | None = None


Item = Delta | Answer  # of a stream: pieces, then the whole


class ModelClient(Protocol):
    """One way of reaching models. Both calls raise UpstreamError or UpstreamTimeout, and end the upstream call when
    their task is cancelled or their iterator closed. `headers` go along: the trace's context."""

    async def complete(self, prompt: Prompt, headers: Mapping[str, str]) -> Answer: ...

    def stream(self, prompt: Prompt, headers: Mapping[str, str]) -> AsyncGenerator[Item, None]:
        """Deltas, then the whole Answer as the last item."""
        ...


def estimate(prompt: Prompt, answered: int) -> Tokens:
    """A count for servers that send none: a token is about four characters of English; `answered` in characters."""
    asked = sum(len(message.content) for message in prompt.messages)
    return Tokens(-(-asked // 4), -(-answered // 4), estimated=True)
