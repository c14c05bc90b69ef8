"""Virtual environments of their own for the peers, under `.bench/`; made once, by uv where there is one."""

import asyncio
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"


async def make_venv(name: str, requirement: str) -> Path:
    """The `bin` folder of a venv that holds just `requirement`; a changed requirement is installed anew."""
    venv = FOLDER / name
    ready, python = venv / ".ready", venv / "bin" / "python"
    if ready.exists() and ready.read_text() == requirement:
        return venv / "bin"
    print(f"bench: installing {requirement} into .bench/{name} (once)", file=sys.stderr, flush=True)
    uv = shutil.which("uv")
    make = [uv, "venv", "-q", "--clear", "-p", sys.executable] if uv else [sys.executable, "-m", "venv"]
    install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
    await run(*make, venv)
    await run(*install, requirement)
    ready.write_text(requirement)
    return venv / "bin"


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, command))
    if await process.wait():
        raise SystemExit(f"bench: {' '.join(map(str, command))} failed")
