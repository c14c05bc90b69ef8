"""Which agents and models there are: read once at start, then only looked up."""

import hashlib
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.errors import NotFound, SettingsError
from service.setting_types import ModelPrice, ProviderSettings
from service.settings import Settings

SHIPPED = Path(__file__).with_name("agents.toml")
# OpenAI API reference, chat completions; a model server may know fewer.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
AgentId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class Parameters(BaseModel):
    """How a model is to answer; what is not set is left to the model server."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]] | None, Field(max_length=4)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Verbosity | None = None

    def over(self, base: "Parameters") -> "Parameters":
        """These parameters, and the base's where these are silent."""
        if not base.model_fields_set:
            return self
        given = {name: value for name, value in self if value is not None}
        return base.model_copy(update=given) if given else base


class Agent(BaseModel):
    """A named way of asking a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: AgentId = ""
    name: str
    description: str
    instructions: str
    model: str | None = None
    parameters: Parameters = Parameters()

    @cached_property
    def revision(self) -> str:
        """Changes whenever the agent would answer differently; part of every cache key."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


# When an agent or model was made, in Unix seconds, as OpenAI's clients want it: not known, and the same on every node.
CREATED_S = 0

# A model asked without an agent: no instructions, no parameters of its own.
DIRECT = Agent(name="Direct", description="The model itself.", instructions="")


@dataclass(frozen=True)
class Provider:
    """One model server as configured."""

    name: str
    base_url: str
    api_key: str = field(repr=False)
    extra_body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model somebody can ask for, and where it is served."""

    id: str
    provider: Provider
    price: ModelPrice


class Catalogue:
    """Agents and models by id, in the order configured."""

    def __init__(self, agents: dict[str, Agent], models: dict[str, Model]) -> None:
        self.agents, self.models = agents, models
        self.default_model = next(iter(models.values()))

    def agent(self, agent_id: str) -> Agent:
        """Raises NotFound with the ids there are."""
        if agent_id not in self.agents:
            raise NotFound(f"There is no agent {agent_id!r}.", known=sorted(self.agents))
        return self.agents[agent_id]

    def model(self, model_id: str | None, agent: Agent | None = None) -> Model:
        """The model asked for, else the agent's, else the default; raises NotFound with the ids there are."""
        wanted = model_id or (agent and agent.model)
        if not wanted:
            return self.default_model
        if wanted not in self.models:
            raise NotFound(f"There is no model {wanted!r}.", known=sorted(self.models))
        return self.models[wanted]


def load(settings: Settings) -> Catalogue:
    """Read the agents file and the configured providers.

    Raises:
        SettingsError: a fault in the file, or an agent on a model that no provider has.
    """
    agents, models = load_agents(settings.agents_file or SHIPPED), load_models(settings)
    for agent in agents.values():
        if agent.model and agent.model not in models:
            raise SettingsError(f"agent {agent.id!r} wants model {agent.model!r}, which no provider has")
    return Catalogue(agents, models)


def load_agents(path: Path) -> dict[str, Agent]:
    try:
        raw = tomllib.loads(path.read_text())
        agents = TypeAdapter(dict[AgentId, Agent]).validate_python(raw.get("agents") or {})
    except OSError as error:
        raise SettingsError(f"AGENTS_FILE: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"AGENTS_FILE: {path} is not TOML: {error}") from None
    except ValidationError as error:
        faults = (f"agents.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError("\n".join(faults)) from None
    if not agents:
        raise SettingsError(f"AGENTS_FILE: {path} has no [agents.<id>]")
    return {name: agent.model_copy(update={"id": name}) for name, agent in agents.items()}


def load_models(settings: Settings) -> dict[str, Model]:
    """Every model of every provider; the first to name a model serves it."""
    models: dict[str, Model] = {}
    for name, configured in providers(settings).items():
        provider = Provider(name, configured.base_url.rstrip("/"), configured.key(), configured.extra_body)
        for model_id, price in configured.models.items():
            models.setdefault(model_id, Model(model_id, provider, price))
    return models


def providers(settings: Settings) -> dict[str, ProviderSettings]:
    if settings.providers:
        return settings.providers
    if not settings.openai_models:
        raise SettingsError("OPENAI_MODELS: name at least one model")
    models = {model_id: ModelPrice() for model_id in settings.openai_models}
    only = ProviderSettings(base_url=settings.openai_base_url, api_key=settings.openai_api_key, models=models)
    return {"openai": only}
