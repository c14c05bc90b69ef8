from pathlib import Path

import pytest


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    """Not there yet; beside what other fixtures keep in the test's folder."""
    return tmp_path / "spool"
