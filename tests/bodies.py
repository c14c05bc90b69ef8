"""What an operation's body may be: its model, or those that a root model chooses between."""

from typing import get_args

from pydantic import BaseModel, RootModel


def models_of(body: type[BaseModel] | None) -> list[type[BaseModel]]:
    if body is None:
        return []
    if not issubclass(body, RootModel):
        return [body]
    return [get_args(member)[0] for member in get_args(body.model_fields["root"].annotation)]


def fields_of(body: type[BaseModel] | None) -> set[str]:
    """The names of all fields of all of them."""
    return {name for model in models_of(body) for name in model.model_fields}
