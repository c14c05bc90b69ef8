import os
import subprocess
from pathlib import Path

import pytest

from tests.observability.tools import require_tool

SCRIPT = Path(__file__).parents[2] / "requirements" / "tools.sh"


def test_a_missing_tool_skips_the_test_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATP_REQUIRE_TOOLS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nosuchtool is not installed: `make tools` does it"):
        require_tool("nosuchtool")


def test_a_missing_tool_fails_the_test_where_tools_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATP_REQUIRE_TOOLS", "1")
    with pytest.raises(pytest.fail.Exception, match="nosuchtool is not installed"):
        require_tool("nosuchtool")


def test_without_apt_the_script_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        [SCRIPT], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    missing = "prometheus prometheus-alertmanager chromium nginx-light"
    assert done.stderr == f"tools: no apt-get here, please install: {missing}\n"
