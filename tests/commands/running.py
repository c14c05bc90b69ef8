"""Running the `atp` command as its user does: a process, its output, its exit code."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(**settings: Any) -> dict[str, str]:
    """This process's environment with settings by their lower-case names."""
    return {**os.environ, **{name.upper(): str(value) for name, value in settings.items()}}


def atp(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
