"""Virtual environments of their own for the peers, under `.bench/`; made once, by uv where there is one."""

import asyncio
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"


async def make_venv(name: str, *requirements: str) -> Path:
    """The `bin` folder of a venv that holds just `requirements`; changed ones are installed anew."""
    venv, wanted = FOLDER / name, " ".join(requirements)
    ready, python = venv / ".ready", venv / "bin" / "python"
    if ready.exists() and ready.read_text() == wanted:
        return venv / "bin"
    print(f"bench: installing {wanted} into .bench/{name} (once)", file=sys.stderr, flush=True)
    uv = shutil.which("uv")
    make = [uv, "venv", "-q", "--clear", "-p", sys.executable] if uv else [sys.executable, "-m", "venv"]
    install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
    await run(*make, venv)
    await run(*install, *requirements)
    ready.write_text(wanted)
    return venv / "bin"


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, command))
    if await process.wait():
        raise SystemExit(f"bench: {' '.join(map(str, command))} failed")
