"""What can be asked: agents and models."""

from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import TypedDict

from service.agents.catalogue import Agent, Catalogue, Model
from service.http.contract import answers
from service.http.etag import entity_tag, unless_known
from service.http.operation import Call

CACHED = ("Cache-Control",)


class AgentItem(TypedDict):
    """`model` answers unless another is asked for; `revision` changes whenever the agent would answer differently."""

    id: str
    name: str
    description: str
    model: str
    revision: str


class AgentsAnswer(TypedDict):
    agents: list[AgentItem]


class Price(TypedDict):
    """In US dollars per million tokens."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float


class ModelItem(TypedDict):
    id: str
    provider: str
    default: bool
    price: Price


class ModelsAnswer(TypedDict):
    models: list[ModelItem]


class CatalogueRoutes:
    """The catalogue does not change while the process runs, so its answers are made once.

    Who may keep them (RFC 9111): a client for `max_age_s`. A shared cache, a CDN, may store them although a key is
    needed (section 3.5: `s-maxage` allows that), and has to ask us each time (`s-maxage=0`, section 5.2.2.10): the
    question carries the caller's own key, so one without a good key gets our 401, a revoked key ends at once, and the
    rest costs a 304. `Vary` alone would not do: some CDNs overlook it, and it knows nothing of a revoked key. It is
    there for caches in browsers, where the next user may have another key. `public, max-age` would hand the lists to
    anybody.
    """

    def __init__(self, catalogue: Catalogue, max_age_s: int) -> None:
        default = catalogue.default_model.id
        agents = AgentsAnswer(agents=[agent_item(agent, default) for agent in catalogue.agents.values()])
        models = ModelsAnswer(models=[model_item(model, default) for model in catalogue.models.values()])
        self._agents, self._models = to_json(agents), to_json(models)
        self._agents_tag, self._models_tag = entity_tag(self._agents), entity_tag(self._models)
        self._headers = keeping(max_age_s)

    @answers(AgentsAnswer, conditional=True, tells=CACHED)
    async def list_agents(self, call: Call[None]) -> Response:
        """List the agents."""
        return unless_known(call.request, self._agents, self._agents_tag, self._headers)

    @answers(ModelsAnswer, conditional=True, tells=CACHED)
    async def list_models(self, call: Call[None]) -> Response:
        """List the models."""
        return unless_known(call.request, self._models, self._models_tag, self._headers)


def keeping(max_age_s: int) -> dict[str, str]:
    """The headers that say what the class above does."""
    return {"cache-control": f"max-age={max_age_s}, s-maxage=0", "vary": "X-API-Key, Authorization"}


def agent_item(agent: Agent, default_model: str) -> AgentItem:
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "model": agent.model or default_model,
        "revision": agent.revision,
    }


def model_item(model: Model, default_model: str) -> ModelItem:
    price = Price(
        input_usd_per_mtok=model.price.input_usd_per_mtok, output_usd_per_mtok=model.price.output_usd_per_mtok
    )
    return {"id": model.id, "provider": model.provider.name, "default": model.id == default_model, "price": price}
