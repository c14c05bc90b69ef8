"""Tools that no wheel carries: `make tools` installs them where apt may be used."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

# What Debian calls it, and what its own archive does.
NAMES = {"alertmanager": ("prometheus-alertmanager", "alertmanager")}


def require_tool(name: str) -> str:
    """The path of a tool; without it the test is skipped with the reason, or fails under ATP_REQUIRE_TOOLS=1."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = next(filter(None, (shutil.which(called, path=path) for called in NAMES.get(name, (name,)))), None)
    if found is None:
        missing(f"{name} is not installed: `make tools` does it, where root or sudo may use apt")
    return found


def missing(reason: str) -> NoReturn:
    """Skip the test with this reason; under ATP_REQUIRE_TOOLS=1 fail it."""
    if os.environ.get("ATP_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def succeed(tool: str, *arguments: str | Path, cwd: Path | None = None, timeout_s: float = 50.0) -> str:
    """Run a tool to its end; returns what it printed, and fails with that when it finds fault."""
    argv = [require_tool(tool), *map(str, arguments)]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
