"""The house rules that can be read off the code: imports follow the rooms, sizes, the route table, the catalogue."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from pydantic import BaseModel

from service.app import operations
from service.http.body import BODY_BYTES
from service.http.operation import Operation
from service.keys.store import SCOPES
from service.limits.policies import KEYED
from tests.bodies import models_of

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "service"

# A room may import from the rooms on its own line's right, and from itself.
CAPABILITIES = ["admin", "agents", "alerting", "cache", "fleet", "keys", "limits", "live", "presence", "tasks", "usage"]
GROUND = ["errors", "plain_url", "pages", "settings", "setting_types", "telemetry", "devices"]
MAY_IMPORT: dict[str, list[str]] = {
    "errors": [],
    "plain_url": [],
    "setting_types": ["errors", "plain_url"],
    "devices": [],
    "pages": ["errors"],
    "settings": ["errors", "setting_types"],
    "setting_page": ["settings"],
    "metric_page": ["telemetry"],
    "telemetry": ["errors", "settings", "devices"],
    "background": [],
    "db": ["background", *GROUND],
    "state": ["background", *GROUND],
    **{room: ["db", "state", "background", *GROUND] for room in CAPABILITIES},
    "http": [*CAPABILITIES, *GROUND],
    "routes": ["http", "background", *CAPABILITIES, *GROUND],
    "app": ["routes", "http"],
    "server": ["settings"],
    "wiring": ["app", "background", "routes", "http", *CAPABILITIES, "state", "db", *GROUND],
    "working": ["background", "serving", "wiring", "server", *GROUND],
    "bridging": ["serving", "wiring", "server", *GROUND],
    "serving": ["wiring", "server", "db", *GROUND],
    "embedded": ["serving", "server", "keys", "db", "background", "errors", "settings"],
    "doctor": ["agents", "db", "state", *GROUND],
    "commands": [
        "admin",
        "agents",
        "embedded",
        "bridging",
        "serving",
        "working",
        "wiring",
        "server",
        "doctor",
        "keys",
        "db",
        "state",
        *GROUND,
    ],
    "__main__": ["commands", "server", "keys", "errors", "settings", "setting_types"],
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports() -> Iterator[tuple[Path, str, str]]:
    for file in SERVICE.rglob("*.py"):
        own = file.relative_to(SERVICE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "service":
                names = [node.module] if node.module != "service" else [f"service.{n.name}" for n in node.names]
                for name in names:
                    yield file, own, room(name or "")


def test_imports_follow_the_rooms() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {other}"
        for file, own, other in imports()
        if own not in ("__init__", other) and other not in MAY_IMPORT[own]
    ]
    assert wrong == []


def functions() -> Iterator[tuple[str, int]]:
    for file in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_are_short() -> None:
    sizes = sorted(size for _, size in functions())
    assert median(sizes) <= 9
    assert sizes[int(len(sizes) * 0.95)] <= 35
    assert [name for name, size in functions() if size > 60] == []


def test_files_are_one_job_long() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in SERVICE.rglob("*.py")}
    assert [str(file.relative_to(ROOT)) for file, count in lines.items() if count > 250] == []


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert [str(file) for file in SERVICE.rglob("*.py") if file.name in drawers] == []


def test_every_room_has_tests_of_its_own() -> None:
    rooms = {folder.name for folder in SERVICE.iterdir() if (folder / "__init__.py").exists()}
    assert [name for name in sorted(rooms) if not list((ROOT / "tests" / name).glob("test_*.py"))] == []


class Anything:
    def __getattr__(self, name: str) -> "Anything":
        return Anything()


TABLE = operations(Anything())  # type: ignore[arg-type]
# All they need is in the key, the path and the query.
WITHOUT_BODY = {"/api/v1/ws-tickets", "/api/admin/drain", "/api/admin/tasks/{task_id}/retry"}


# A thousand tasks at once.
LARGER_BODIES = {"/api/v1/tasks": 4_000_000}


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: f"{operation.method} {operation.path}")
def test_every_operation_has_a_scope_a_rate_limit_and_a_size_cap(operation: Operation) -> None:
    assert operation.scope in SCOPES
    assert operation.policy in KEYED
    assert operation.scope not in ("keys", "admin") or operation.policy == operation.scope
    assert 0 < operation.body_bytes <= LARGER_BODIES.get(operation.path, BODY_BYTES)
    if operation.method in ("POST", "PUT", "PATCH") and operation.path not in WITHOUT_BODY:
        assert operation.body is not None


def models(found: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield found
    for field in found.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


@pytest.mark.parametrize("operation", [o for o in TABLE if o.body], ids=lambda operation: operation.path)
def test_every_body_refuses_unknown_fields(operation: Operation) -> None:
    for model in [found for body in models_of(operation.body) for found in models(body)]:
        assert model.model_config.get("extra") == "forbid", model
