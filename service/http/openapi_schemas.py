"""The types of the route table as JSON Schema 2020-12: those that validate requests, those that answers are made of."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from service.http.openapi_parts import Json

TEMPLATE = "#/components/schemas/{model}"


class Plain(GenerateJsonSchema):
    """Without the titles that only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Schemas:
    """`definitions` is what `#/components/schemas/` has to hold."""

    def __init__(self, requests: Iterable[Any], answers: Iterable[Any]) -> None:
        wanted: dict[tuple[Any, JsonSchemaMode], TypeAdapter[Any]] = {}
        for found in requests:
            wanted[found, "validation"] = TypeAdapter(found)
        for found in answers:
            wanted[found, "serialization"] = TypeAdapter(found)
        inputs = [(type_, mode, adapter) for (type_, mode), adapter in wanted.items()]
        self._found, rest = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE, schema_generator=Plain)
        self.definitions: Json = rest.get("$defs", {})

    def request(self, type_: Any) -> Json:
        return self._found[type_, "validation"]

    def answer(self, type_: Any) -> Json:
        return self._found[type_, "serialization"]


def parameters(model: type[BaseModel] | None, place: str) -> list[Json]:
    """A model's fields as parameters in the query, the path or the headers; they are text, so null is none of them."""
    if model is None:
        return []
    schema = model.model_json_schema(schema_generator=Plain)
    required = schema.get("required", [])
    return [
        {"name": name, "in": place, "required": name in required or place == "path", **described(field)}
        for name, field in schema["properties"].items()
    ]


def described(field: Json) -> Json:
    text = {"description": field.pop("description")} if "description" in field else {}
    if "anyOf" in field:
        [kind] = [kind for kind in field.pop("anyOf") if kind != {"type": "null"}]
        field |= kind
    if field.get("default", "") in (None, ""):
        field.pop("default", None)
    told = {**text, "schema": field}
    return told | {"style": "form", "explode": False} if field.get("type") == "array" else told  # `a,b`
