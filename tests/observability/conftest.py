"""The tools of these tests."""

from collections.abc import Iterator

import pytest

from tests.observability import bugsink
from tests.observability.bugsink import Bugsink


@pytest.fixture(scope="session")
def bugsink_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bugsink]:
    """The session's Sentry-compatible server."""
    with bugsink.bugsink(tmp_path_factory.mktemp("bugsink")) as server:
        yield server


@pytest.fixture
def sentry(bugsink_server: Bugsink) -> Bugsink:
    """The same, with nothing in it."""
    bugsink_server.clear()
    return bugsink_server
