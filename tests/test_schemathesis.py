"""Every operation of the OpenAPI document, asked by schemathesis on a running node: with what fits the schema, with
what does not, without a key, by methods that are not there. What it draws is the same at every run."""

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.embedded.postgres import Postgres
from service.embedded.valkey import Valkey
from service.wiring.docs import api_document
from tests.conftest import new_database
from tests.processes import Fleet, NodeProcess
from tests.servers import run
from tests.upstream import upstream

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
EXAMPLES = 25  # beside those that follow from the schema, 10 to 80 an operation
CHOICE = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# Another operation takes the same path by another method: a user's id may hold a slash, and be `online`; `generate`
# could be the prefix of a key. So its methods are there, though not in the document under this path.
SHARED = {
    "POST /api/v1/keys/generate",
    "GET /api/admin/users/online",
    "POST /api/admin/users/{user_id}/disconnect",
    "DELETE /api/admin/users/{user_id}/block",
}
OF_METHODS = (unsupported_method, allow_header_conformance)

schema = schemathesis.openapi.from_dict(api_document())
schema.config.generation.update(with_security_parameters=False)
# Of a body over a megabyte nothing is read that could be wrong.
rejected = schema.config.checks.negative_data_rejection
rejected.expected_statuses = [*rejected.expected_statuses, "413"]


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    """The scripted models, on a loop in a thread of its own."""
    with served() as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def served() -> Iterator[int]:
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with upstream() as models:
            ready.set_result((models.port, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    port, loop, stop = ready.result(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="module")
def its_database(postgres_server: Postgres) -> Iterator[str]:
    yield from new_database(postgres_server, "atp")


@pytest.fixture(scope="module")
def process(
    its_database: str, valkey_server: Valkey, model_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    """A process, for Hypothesis seeds `random` and wants nobody else to draw from it; it may log no fault."""
    folder = tmp_path_factory.mktemp("node")
    fleet = Fleet(folder, its_database, [valkey_server.url], model_url, access_log_sample=1)
    try:
        run(fleet.start())
        [process] = fleet.nodes
        yield process
        assert process.faults() == []
    finally:
        run(fleet.kill())


@pytest.fixture
def answered(request: pytest.FixtureRequest, process: NodeProcess) -> Iterator[None]:
    """When one operation is through, it has been both done and refused; the node's access log says so."""
    yield
    label = request.node.name.partition("[")[2].removesuffix("]")
    statuses = counted(process, *label.split(" "))
    assert [status for status in statuses if 200 <= status < 300], statuses
    assert [status for status in statuses if 400 <= status < 500 and status != 405], statuses


def counted(process: NodeProcess, method: str, route: str) -> set[int]:
    """The statuses that were answered; metrics keep only so many routes and statuses apart."""
    line = f'"method":"{method}","route":"{re.escape(route)}","status":(\\d+)'
    return {int(status) for status in re.findall(line, process.log())}


class Targets:
    """What an operation may be done to: made for it, so that nothing drawn ends the key that asks."""

    def __init__(self, process: NodeProcess, database_url: str) -> None:
        self._dsn = database_url
        headers = {"X-API-Key": process.key}
        self._http = httpx2.Client(base_url=process.url, headers=headers, timeout=10)
        self._made = itertools.count(1)
        self._turn = itertools.count()
        self._of: dict[str, Callable[[], dict[str, str]]] = {
            "GET /v1/models/{model}": lambda: {"model": "agent:reasoning"},
            "GET /api/v1/sessions/{session_id}": self.session,
            "DELETE /api/v1/sessions/{session_id}": self.session,
            "GET /api/v1/tasks/{task_id}": self.task,
            "DELETE /api/v1/tasks/{task_id}": self.task,
            "GET /api/v1/tasks/{task_id}/events": self.ended_task,
            "POST /api/admin/tasks/{task_id}/retry": self.failed_task,
            "DELETE /api/v1/keys/{key_prefix}": self.key,
            "POST /api/v1/keys/{key_prefix}/rotate": self.key,
            "DELETE /api/admin/users/{user_id}/block": lambda: {"user_id": self.block()["subject"]},
            "DELETE /api/admin/blocks/{kind}/{subject}": self.block,
            "GET /api/admin/users/{user_id}": self.user,
            "PATCH /api/admin/users/{user_id}": self.user,
            "DELETE /api/admin/cache/{agent_id}": lambda: {"agent_id": "reasoning"},
        }

    def close(self) -> None:
        self._http.close()

    def aim(self, case: Case) -> None:
        """Every other time, and never where what was drawn is meant to be refused."""
        make, meta = self._of.get(case.operation.label), case.meta
        if make and meta and meta.generation.mode.is_positive and next(self._turn) % 2 == 0:
            case.path_parameters = make()

    def user(self) -> dict[str, str]:
        name = f"target-{next(self._made)}"
        made = self._post("/api/admin/users", {"username": name, "email": f"{name}@example.org"})
        return {"user_id": str(made["user_id"])}

    def key(self) -> dict[str, str]:
        made = self._post("/api/v1/keys/generate", {"name": "target", **self.user()})
        return {"key_prefix": str(made["prefix"])}

    def block(self) -> dict[str, str]:
        who = {"kind": "user", "subject": f"target-{next(self._made)}"}
        self._post("/api/admin/blocks", {**who, "for_s": 60})
        return who

    def task(self) -> dict[str, str]:
        made = self._post("/api/v1/tasks", {"agent": "reasoning", "task": "Hello", "model": "good"})
        return {"task_id": made["ids"][0]}

    def ended_task(self) -> dict[str, str]:
        """Its events end at once."""
        made = self.task()
        self._http.delete(f"/api/v1/tasks/{made['task_id']}").raise_for_status()
        return made

    def failed_task(self) -> dict[str, str]:
        """As a worker would have left it; none runs here."""
        task = self.task()
        with psycopg.connect(self._dsn) as connection:
            connection.execute("UPDATE tasks SET status = 'failed', finished_at = now() WHERE id = %(task_id)s", task)
        return task

    def session(self) -> dict[str, str]:
        session_id = f"target-{next(self._made)}"
        self._post("/api/v1/chat", {"agent": "reasoning", "task": "Hello", "model": "good", "session_id": session_id})
        return {"session_id": session_id}

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self._http.post(path, json=body).raise_for_status().json()
        return made


@pytest.fixture(scope="module")
def targets(process: NodeProcess, its_database: str) -> Iterator[Targets]:
    found = Targets(process, its_database)
    yield found
    found.close()


@schema.parametrize()
@CHOICE
def test_an_operation_keeps_to_the_document(process: NodeProcess, targets: Targets, answered: None, case: Case) -> None:
    targets.aim(case)
    without = OF_METHODS if case.operation.label in SHARED else ()
    checks = [check for check in CHECKS if check not in without]
    case.call_and_validate(base_url=process.url, headers={"X-API-Key": process.key}, checks=checks, timeout=10)
