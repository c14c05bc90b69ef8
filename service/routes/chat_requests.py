"""What a chat may ask, over REST and WebSocket alike."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, model_validator
from starlette.datastructures import Headers

from service.agents.catalogue import Parameters
from service.routes.admin_requests import STRICT, Id

MAX_AGENTS = 8
MAX_BATCH = 20
AgentName = Annotated[str, Field(min_length=1, max_length=63)]
Task = Annotated[str, Field(min_length=1, max_length=400_000)]


class BatchItem(BaseModel):
    """A task for one agent, or for several side by side."""

    model_config = STRICT
    agent: AgentName | None = None
    agents: Annotated[list[AgentName] | None, Field(min_length=1, max_length=MAX_AGENTS)] = None
    task: Task
    model: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    parameters: Parameters = Parameters()

    @model_validator(mode="after")
    def one_or_several(self) -> "BatchItem":
        if (self.agent is None) == (self.agents is None):
            raise ValueError("give either agent or agents")
        if self.agents and len(set(self.agents)) != len(self.agents):
            raise ValueError("agents must differ from each other")
        return self

    def agent_ids(self) -> list[str]:
        return self.agents or [self.agent or ""]


class ChatRequest(BatchItem):
    """A task, answered whole or, with `stream`, piece by piece; `session_id` goes on with a conversation."""

    session_id: Id | None = None
    stream: bool = False


class BatchRequest(BaseModel):
    """Several tasks at once; each counts as a chat."""

    model_config = STRICT
    requests: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_BATCH)]


@dataclass(frozen=True, slots=True)
class Caching:
    """What a request's Cache-Control allows (RFC 9111, section 5.2.1)."""

    read: bool = True
    write: bool = True


ANY = Caching()


class CachingHeader(BaseModel):
    """What `caching` reads; it takes anything, as RFC 9111 asks, and minds what it knows."""

    cache_control: str | None = Field(
        None,
        alias="Cache-Control",
        description="`no-cache`: ask anew, and keep that answer; `no-store`: ask anew, and keep nothing.",
    )


def caching(headers: Headers) -> Caching:
    """`no-cache`: ask anew, and keep that answer; `no-store`: ask anew, and keep nothing."""
    said = ",".join(headers.getlist("cache-control"))  # several are one list (RFC 9110, section 5.3)
    if not said:
        return ANY
    directives = {part.strip().lower() for part in said.split(",")}
    write = "no-store" not in directives
    return Caching(write and "no-cache" not in directives, write)
