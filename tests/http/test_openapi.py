"""The OpenAPI document: valid, whole, and of the same types as the code."""

import json
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.routing import Route

from service.errors import AtpError, Conflict, Invalid
from service.http.body import parse
from service.http.contract import answers
from service.http.openapi import document, operation_id, tag, template
from service.http.operation import Call, Operation
from service.keys.store import SCOPES
from service.routes.admin_requests import BroadcastRequest, DisconnectRequest, DrainRequest
from service.routes.answering import ChatRequest
from service.routes.completion_requests import CompletionRequest
from service.routes.presence import HeartbeatRequest
from service.wiring.docs import api_document
from tests.nodes import RunningNode

DOCUMENT = api_document()
TOLD = {f"{method.upper()} {path}": told for path, item in DOCUMENT["paths"].items() for method, told in item.items()}


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.1"
    assert [str(fault) for fault in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(DOCUMENT)] == []


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = set(references(DOCUMENT))
    assert len(found) > 30
    for reference in found:
        _, section, kind, name = reference.split("/")
        assert name in DOCUMENT[section][kind], reference


async def test_every_public_route_is_in_the_document_and_nothing_else(node: RunningNode) -> None:
    routes = [route for route in node.parts.public.router.routes if isinstance(route, Route)]
    served = {f"{method} {template(route.path)}" for route in routes for method in (route.methods or set()) - {"HEAD"}}
    exempt = {"GET /healthz", "GET /openapi.json", "GET /docs"}
    assert exempt <= served
    assert {name for name in served - exempt if not name.startswith("GET /docs/")} == set(TOLD)
    assert [route.path for route in node.parts.public.router.routes if route not in routes] == ["/ws/session"]


@pytest.mark.parametrize("name", TOLD)
def test_every_operation_says_what_it_does_answers_and_needs(name: str) -> None:
    told = TOLD[name]
    assert told["summary"]
    assert not told["summary"].endswith(".")
    assert told["x-required-scope"] in SCOPES
    assert f"`{told['x-required-scope']}`" in told["description"]
    assert told["security"] == [{"apiKey": []}, {"bearer": []}]
    [good] = [status for status in told["responses"] if status.startswith("2")]
    assert ("content" in told["responses"][good]) == (good != "204")
    assert {"401", "403", "429", "500", "503"} <= set(told["responses"])
    if "requestBody" in told:
        refused = {"400"} if name.startswith("POST /v1/") else {"413", "415", "422"}
        assert refused <= set(told["responses"])


def test_operation_ids_are_made_of_method_and_path_and_differ() -> None:
    ids = [told["operationId"] for told in TOLD.values()]
    assert len(set(ids)) == len(ids)
    assert TOLD["GET /api/v1/agents"]["operationId"] == "get_agents"
    assert TOLD["DELETE /api/admin/users/{user_id}/block"]["operationId"] == "delete_admin_users_user_id_block"
    assert TOLD["POST /api/v1/ws-tickets"]["tags"] == ["ws-tickets"]
    assert TOLD["GET /api/admin/stats/system"]["tags"] == ["admin"]


def test_parameters_come_from_the_models_that_read_them() -> None:
    assert TOLD["GET /api/admin/users/online"]["parameters"][:2] == [
        {
            "name": "cursor",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "maxLength": 512},
        },
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        },
    ]
    key = TOLD["POST /api/admin/broadcast"]["parameters"][0]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", False)
    assert key["schema"] == {"type": "string", "minLength": 1, "maxLength": 128}
    [user, _] = TOLD["DELETE /api/admin/users/{user_id}/block"]["parameters"]
    assert (user["name"], user["in"], user["required"]) == ("user_id", "path", True)


REFUSED: list[tuple[type[BaseModel], str]] = [
    (BroadcastRequest, "{}"),
    (BroadcastRequest, '{"message": ""}'),
    (BroadcastRequest, '{"message": "m", "expires_s": "60"}'),
    (BroadcastRequest, '{"message": "m", "expires_s": 301}'),
    (BroadcastRequest, '{"message": "m", "dry_run": "yes"}'),
    (BroadcastRequest, '{"message": "m", "dry_run": 1}'),
    (BroadcastRequest, '{"message": "m", "devices": ["watch"]}'),
    (BroadcastRequest, '{"message": "m", "else": 1}'),
    (DisconnectRequest, '{"block_s": 0}'),
    (DisconnectRequest, '{"reason": null}'),
    (DrainRequest, '{"rate": "5"}'),
    (DrainRequest, '{"rate": 0.5}'),
    (HeartbeatRequest, '{"session_id": ""}'),
    (HeartbeatRequest, '{"device_type": "watch"}'),
    (ChatRequest, '{"agent": "coding"}'),
    (ChatRequest, '{"agent": "coding", "task": "t", "stream": "true"}'),
    (ChatRequest, '{"agent": "coding", "task": "t", "parameters": {"temperature": "1"}}'),
    (ChatRequest, '{"agent": "coding", "task": "t", "parameters": {"temperature": 2.1}}'),
]


@pytest.mark.parametrize(("model", "body"), REFUSED)
def test_the_code_and_the_document_refuse_the_same_bodies(model: type[BaseModel], body: str) -> None:
    with pytest.raises(AtpError):
        parse(body.encode(), model)
    assert not validator(model).is_valid(json.loads(body))


ACCEPTED: list[tuple[type[BaseModel], str]] = [
    (BroadcastRequest, '{"message": "m", "data": {"a": [null]}, "devices": ["mobile"], "expires_s": 1}'),
    (DisconnectRequest, "{}"),
    (DrainRequest, '{"node": null, "rate": 5}'),
    (HeartbeatRequest, '{"session_id": "s", "device_type": "tablet"}'),
    (ChatRequest, '{"agents": ["coding"], "task": "t", "model": null, "parameters": {"temperature": 1}}'),
]


@pytest.mark.parametrize(("model", "body"), ACCEPTED)
def test_the_code_and_the_document_take_the_same_bodies(model: type[BaseModel], body: str) -> None:
    parse(body.encode(), model)
    assert validator(model).is_valid(json.loads(body))


def validator(model: type[BaseModel]) -> Any:
    components = {"components": DOCUMENT["components"]}
    reference = f"#/components/schemas/{model.__name__}"
    return jsonschema_rs.Draft202012Validator({"$ref": reference, **components})


def test_the_examples_fit_their_schema() -> None:
    content = TOLD["POST /api/v1/chat"]["requestBody"]["content"]["application/json"]
    assert list(content["examples"]) == ["one agent", "several agents", "piece by piece"]
    for example in content["examples"].values():
        assert validator(ChatRequest).is_valid(example["value"])


@pytest.mark.parametrize("name", [name for name in TOLD if "requestBody" in TOLD[name]])
def test_every_example_is_a_body_that_would_be_taken(name: str) -> None:
    content = TOLD[name]["requestBody"]["content"]["application/json"]
    for example in content.get("examples", {}).values():
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(example["value"])


COMPLETION = {"model": "good", "messages": [{"role": "user", "content": "Hello"}]}
MORE: list[tuple[dict[str, Any], bool]] = [
    ({"n": 1}, True),
    ({"n": 1.0}, True),
    ({"n": None}, True),
    ({"n": True}, False),
    ({"n": 2}, False),
    ({"logprobs": False}, True),
    ({"logprobs": 0}, False),
    ({"tools": []}, True),
    ({"tools": [{}]}, False),
    ({"audio": None}, True),
    ({"audio": {}}, False),
    ({"response_format": {"type": "text"}}, True),
    ({"response_format": {"type": "json_object"}}, False),
    ({"metadata": {"a": [1]}, "user": 5, "store": "yes"}, True),
    ({"colour": "red"}, False),
]


@pytest.mark.parametrize(("more", "taken"), MORE)
def test_what_openai_s_api_would_do_and_we_cannot_is_told(more: dict[str, Any], taken: bool) -> None:
    body = {**COMPLETION, **more}
    assert validator(CompletionRequest).is_valid(body) is taken
    if taken:
        parse(json.dumps(body).encode(), CompletionRequest)
    else:
        with pytest.raises(Invalid):
            parse(json.dumps(body).encode(), CompletionRequest)


def test_an_answer_s_headers_are_told() -> None:
    chat, completion = TOLD["POST /api/v1/chat"], TOLD["POST /v1/chat/completions"]
    limits = {"X-Request-Id", "RateLimit-Policy", "RateLimit"}
    assert set(chat["responses"]["200"]["headers"]) == {*limits, "X-Cache", "Age"}
    assert set(chat["responses"]["429"]["headers"]) == {*limits, "Retry-After"}
    own = {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"}
    assert set(completion["responses"]["200"]["headers"]) == {*limits, *own, "X-Cache", "Age"}
    assert "`rate-limited`" in chat["responses"]["429"]["description"]


def test_what_is_sent_to_a_url_of_the_body_is_told() -> None:
    ((place, item),) = TOLD["POST /api/v1/tasks"]["callbacks"]["callback_url"].items()
    assert place == "{$request.body#/callback_url}"
    names = {"webhook-id": True, "webhook-timestamp": True, "webhook-signature": False}
    assert {parameter["name"]: parameter["required"] for parameter in item["post"]["parameters"]} == names
    sent = item["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sent == {"$ref": "#/components/schemas/TaskEnded"}
    assert set(DOCUMENT["components"]["schemas"]["TaskEnded"]["properties"]) == {"type", "timestamp", "data"}
    assert "callbacks" not in TOLD["GET /api/v1/tasks"]


def test_lists_that_a_client_may_keep_are_told_to_be_conditional() -> None:
    told = TOLD["GET /api/v1/agents"]
    assert {"$ref": "#/components/parameters/If-None-Match"} in told["parameters"]
    assert set(told["responses"]["304"]["headers"]) >= {"ETag", "Cache-Control"}
    assert "content" not in told["responses"]["304"]


def test_a_list_in_the_query_is_written_with_commas() -> None:
    [found] = [one for one in TOLD["GET /api/v1/usage"]["parameters"] if one.get("name") == "group_by"]
    assert (found["style"], found["explode"], found["schema"]["type"]) == ("form", False, "array")
    assert found["schema"]["items"]["enum"] == ["key", "agent", "model", "user"]


class Made(BaseModel):
    id: str


class Things:
    @answers(Made, status=201, media=("text/csv",), errors=(Conflict,))
    async def create(self, call: Call[Made]) -> Any:
        """Make a thing.

        It is kept.
        """


def test_a_new_operation_needs_only_its_line_and_its_types() -> None:
    found = document([Operation("POST", "/api/v1/things/{thing_id:path}", Things().create, "chat", Made)], "9.9.9")
    told = found["paths"]["/api/v1/things/{thing_id}"]["post"]
    assert found["info"]["version"] == "9.9.9"
    assert (told["summary"], told["operationId"]) == ("Make a thing", "post_things_thing_id")
    assert told["description"] == "It is kept.\n\nNeeds a key with the scope `chat`."
    assert told["parameters"][0] == {"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}}
    assert set(told["responses"]["201"]["content"]) == {"application/json", "text/csv"}
    assert told["responses"]["409"]["description"].startswith("`conflict`: ")
    assert "application/problem+json" in told["responses"]["409"]["content"]


def test_openai_s_paths_answer_errors_in_openai_s_shape() -> None:
    operation = Operation("POST", "/v1/chat/completions", Things().create, "chat", Made)
    told = document([operation], "1")["paths"]["/v1/chat/completions"]["post"]
    assert (operation_id(operation), tag(operation.path)) == ("post_openai_chat_completions", "openai")
    schema = told["responses"]["401"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/OpenAIError"}
    assert sorted(told["responses"]) == ["201", "400", "401", "403", "408", "409", "429", "500", "503"]
