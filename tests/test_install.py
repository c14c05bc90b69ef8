"""`requirements/install.py`: what a person sees when the locked wheels cannot be installed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_platform_without_a_wheel_gets_one_line_with_the_alternative(
    install: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    output = "Collecting x\nERROR: No matching distribution found for xllamacpp==2026.10.11549\n"
    assert install.explain(output) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "xllamacpp==2026.10.11549 has no wheel for Linux" in said
    assert "your own PostgreSQL and Redis" in said


def test_another_failure_shows_pips_last_lines(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.explain("a\nTHESE PACKAGES DO NOT MATCH THE HASHES\n") == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in capsys.readouterr().err


def test_an_old_python_is_told_so(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.sys, "version_info", (3, 10, 1))
    assert install.main("run") == 1
    assert "ATP needs Python 3.11 or newer" in capsys.readouterr().err


@pytest.mark.parametrize("lock", ["run", "dev"])
def test_every_locked_package_has_hashes_and_no_address(install: ModuleType, lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert install.requirement_count((str(ROOT / "requirements" / f"{lock}.txt"),)) > 60
    assert "http://" not in text
    assert "https://" not in text
    blocks = [block for block in text.replace("\\\n", " ").splitlines() if "==" in block]
    assert all("--hash=sha256:" in block for block in blocks)
