"""All nine, in the order of the links on top of each."""

from observability.grafana.builder import (
    cache,
    http_slo,
    limits_keys,
    on_call,
    online_users,
    overview,
    resources,
    tasks_models,
    websockets,
)
from observability.grafana.builder.board import Board


def boards() -> list[Board]:
    return [
        overview.board(),
        online_users.board(),
        http_slo.board(),
        websockets.board(),
        limits_keys.board(),
        cache.board(),
        tasks_models.board(),
        resources.board(),
        on_call.board(),
    ]
