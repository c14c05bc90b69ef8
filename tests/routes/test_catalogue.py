"""GET /api/v1/agents and /api/v1/models."""

import pytest

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


@pytest.mark.parametrize("path", ["/api/v1/agents", "/api/v1/models"])
async def test_a_client_may_keep_the_list_and_a_cdn_must_ask_each_time(node: RunningNode, path: str) -> None:
    response = await node.http.get(path)
    assert response.headers["cache-control"] == "max-age=60, s-maxage=0"
    assert response.headers["vary"] == "X-API-Key, Authorization"
    tag = response.headers["etag"]
    again = await node.http.get(path, headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["cache-control"] == "max-age=60, s-maxage=0"
    assert (await node.http.get(path, headers={"if-none-match": '"other"'})).status_code == 200


async def test_a_question_with_the_right_tag_and_no_good_key_is_refused(node: RunningNode) -> None:
    tag = (await node.http.get("/api/v1/agents")).headers["etag"]
    for key in ("", "atp_live_wrong"):
        response = await node.http.get("/api/v1/agents", headers={"x-api-key": key, "if-none-match": tag})
        assert response.status_code == 401
        assert "etag" not in response.headers


async def test_the_two_lists_have_tags_of_their_own(node: RunningNode) -> None:
    tags = {(await node.http.get(path)).headers["etag"] for path in ("/api/v1/agents", "/api/v1/models")}
    assert len(tags) == 2
