"""What can be asked: agents and models."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from service.agents.catalogue import Agent, Catalogue, Model
from service.http.operation import Call


class CatalogueRoutes:
    """The catalogue does not change while the process runs, so its answers are made once."""

    def __init__(self, catalogue: Catalogue) -> None:
        default = catalogue.default_model.id
        self._agents = to_json({"agents": [agent_item(a, default) for a in catalogue.agents.values()]})
        self._models = to_json({"models": [model_item(m, default) for m in catalogue.models.values()]})

    async def list_agents(self, call: Call[None]) -> Response:
        """List the agents."""
        return Response(self._agents, media_type="application/json")

    async def list_models(self, call: Call[None]) -> Response:
        """List the models."""
        return Response(self._models, media_type="application/json")


def agent_item(agent: Agent, default_model: str) -> dict[str, Any]:
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "model": agent.model or default_model,
        "revision": agent.revision,
    }


def model_item(model: Model, default_model: str) -> dict[str, Any]:
    price = model.price.model_dump()
    return {"id": model.id, "provider": model.provider.name, "default": model.id == default_model, "price": price}
