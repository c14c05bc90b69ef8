"""Three nodes for the whole folder, and three of a test's own for those that kill one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.embedded.postgres import Postgres
from service.embedded.valkey import VOLATILE, start_valkey
from tests.conftest import new_database
from tests.processes import Fleet
from tests.servers import OwnValkey, run
from tests.upstream import Upstream


@pytest.fixture(scope="package")
def fleet_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnValkey]:
    """The shared fleet's Redis; one that is started again is empty."""
    folder = tmp_path_factory.mktemp("fleet-valkey")
    with OwnValkey.started(lambda port: start_valkey(folder, port, settings=VOLATILE)) as own:
        yield own


@pytest.fixture(scope="package")
def started_fleet(
    postgres_server: Postgres, fleet_valkey: OwnValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    for database_url in new_database(postgres_server, template="atp"):
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), database_url, [fleet_valkey.url] * 3)
        try:
            run(fleet.start())
            yield fleet
        finally:
            run(fleet.kill())


@pytest.fixture(scope="package")
def users(started_fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Each one's id and key."""
    return {name: run(started_fleet.user(name)) for name in ("ana", "ben")}


@pytest.fixture
async def fleet(started_fleet: Fleet) -> AsyncIterator[Fleet]:
    """The shared fleet, with nobody online; leave all three nodes as they were."""
    async with started_fleet.in_use() as fleet:
        yield fleet


@pytest.fixture
async def own_fleet(database_url: str, redis_url: str, model_server: Upstream, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Three nodes of the test's own, over the scripted models."""
    fleet = Fleet(tmp_path / "fleet", database_url, [redis_url] * 3, model_server.base_url)
    try:
        await fleet.start()
        async with fleet.in_use():
            yield fleet
    finally:
        await fleet.kill()
