"""GET /api/v1/agents and /api/v1/models."""

from tests.nodes import RunningNode
from tests.upstream import SCRIPTS


async def test_the_agents_are_listed_in_order_with_the_model_they_run_on(node: RunningNode) -> None:
    response = await node.http.get("/api/v1/agents")
    assert response.headers["content-type"] == "application/json"
    agents = response.json()["agents"]
    assert [agent["id"] for agent in agents] == ["reasoning", "coding", "research", "writing", "summary"]
    assert agents[0]["name"] == "Reasoning"
    assert agents[0]["description"] == "Thinks a question through and answers with the reasons."
    assert agents[0]["model"] == "good"
    assert len(agents[0]["revision"]) == 16
    assert "instructions" not in agents[0]


async def test_the_models_are_listed_with_the_default_marked_and_no_key(node: RunningNode) -> None:
    response = await node.http.get("/api/v1/models")
    models = response.json()["models"]
    assert [model["id"] for model in models] == list(SCRIPTS)
    assert [model["id"] for model in models if model["default"]] == ["good"]
    assert models[0]["provider"] == "scripted"
    assert models[0]["price"] == {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}
    assert "sk-upstream" not in response.text


async def test_head_answers_like_get_without_a_body(node: RunningNode) -> None:
    response = await node.http.head("/api/v1/models")
    assert (response.status_code, response.content) == (200, b"")
