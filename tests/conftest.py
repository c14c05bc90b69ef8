"""The servers every test may ask for. All are real; they are started when first asked for, once a session.

Fixtures are synchronous, because a session's servers outlive the event loop of each test.
"""

import gc
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import structlog

from service.embedded.llm import Llm, start_llm
from service.embedded.postgres import Postgres, start_postgres
from service.embedded.valkey import VOLATILE, Valkey, start_valkey
from tests import redis_topologies
from tests.memory import memory_folder
from tests.nodes import RunningNode, node_settings, running
from tests.redis_topologies import Cluster, SentinelTrio
from tests.servers import OwnPostgres, OwnValkey, run
from tests.telemetry.sinks import Sink, sink
from tests.upstream import Upstream, upstream

database_numbers = itertools.count(1)


def pytest_collection_finish() -> None:
    """Leave what collecting made, 330,000 objects, out of every later look of the collector.

    Each look stopped the loop of a test's nodes for 0.2 s, and on a busy machine for longer than they wait for Redis.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on tmpfs, for what is large and nobody reads."""
    with memory_folder(otherwise=tmp_path_factory.getbasetemp()) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_template(in_memory: Path) -> Path:
    """A state folder whose database `atp` is migrated, with no server on it: to be copied, never used."""
    from service.db.migrate import migrate

    folder = in_memory / "postgres-template"
    postgres = run(start_postgres(folder, fsync=False))
    run(migrate(postgres.dsn))
    run(postgres.stop())
    return folder


@pytest.fixture(scope="session")
def postgres_server(postgres_template: Path, in_memory: Path) -> Iterator[Postgres]:
    """The session's PostgreSQL. Its fsync is off only because every test makes a database; ATP runs with it on."""
    folder = in_memory / "postgres"
    shutil.copytree(postgres_template, folder)
    postgres = run(start_postgres(folder, fsync=False))
    yield postgres
    run(postgres.stop())


@pytest.fixture
def database_url(postgres_server: Postgres) -> Iterator[str]:
    """DSN of a database of the test's own with every migration applied."""
    yield from new_database(postgres_server, template="atp")


@pytest.fixture
def empty_database_url(postgres_server: Postgres) -> Iterator[str]:
    """DSN of a database of the test's own with nothing in it."""
    yield from new_database(postgres_server, template="template0")


def new_database(server: Postgres, template: str) -> Iterator[str]:
    name = f"test_{next(database_numbers)}"
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        # Copying files takes half the time of logging their pages, which is the default.
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER atp STRATEGY file_copy")
    yield server.dsn.removesuffix("/atp") + f"/{name}"
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_postgres(postgres_template: Path, in_memory: Path) -> Iterator[OwnPostgres]:
    """A PostgreSQL (fsync on, migrated) that the test may kill, freeze and restart."""
    folder = in_memory / f"own-postgres-{next(database_numbers)}"
    shutil.copytree(postgres_template, folder)
    try:
        with OwnPostgres.started(lambda port: start_postgres(folder, port)) as own:
            yield own
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what a killed server's children still write is swept with the rest


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The session's Valkey, keeping everything in memory only."""
    valkey = run(start_valkey(tmp_path_factory.mktemp("valkey"), settings=VOLATILE))
    yield valkey
    run(valkey.stop())


@pytest.fixture
def redis_url(valkey_server: Valkey) -> str:
    """URL of the session's Valkey, emptied."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A Valkey with an append-only file that the test may kill, freeze and restart."""
    with OwnValkey.started(lambda port: start_valkey(tmp_path / "own-valkey", port)) as own:
        yield own


@pytest.fixture
def sentinel_trio(tmp_path: Path) -> Iterator[SentinelTrio]:
    """A primary, two replicas and three sentinels of the test's own."""
    with redis_topologies.sentinel_trio(tmp_path / "sentinel") as trio:
        yield trio


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries for the session; what a test writes stays, so take keys of your own."""
    with redis_topologies.cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llm]:
    """The small model behind its OpenAI-compatible server."""
    llm = run(start_llm(tmp_path_factory.mktemp("llm")))
    yield llm
    run(llm.stop())


@pytest.fixture
async def model_server() -> AsyncIterator[Upstream]:
    """A scripted stand-in for a paid model server; the model's name says how it behaves."""
    async with upstream() as scripted:
        yield scripted


@pytest.fixture
async def node(database_url: str, redis_url: str, model_server: Upstream) -> AsyncIterator[RunningNode]:
    """A whole node over the session's servers and the scripted models."""
    async with running(node_settings(database_url, redis_url, model_server)) as started:
        yield started


@pytest.fixture
async def collector() -> AsyncIterator[Sink]:
    """A stand-in for a trace collector and for Sentry."""
    async with sink() as started:
        yield started


@pytest.fixture
async def told(
    database_url: str, redis_url: str, model_server: Upstream, collector: Sink
) -> AsyncIterator[RunningNode]:
    """A node that exports everything to the collector."""
    sinks = {"otel_exporter_otlp_endpoint": collector.otlp_endpoint, "sentry_dsn": collector.sentry_dsn}
    async with running(node_settings(database_url, redis_url, model_server, **sinks)) as node:
        yield node


class Events(list[str]):
    """A processor of structlog's that keeps each event's name."""

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        self.append(event["event"])
        raise structlog.DropEvent


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The events of the log, whoever configured it before."""
    before, events = structlog.get_config(), Events()
    structlog.configure(processors=[events], wrapper_class=structlog.make_filtering_bound_logger(0))
    yield events
    structlog.configure(**before)
