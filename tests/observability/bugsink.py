"""Bugsink, a real server that speaks Sentry's protocol: installed once, started for a session, read back by SQL.

It is a tool of the tests and lives in a venv of its own under `.tools/`: it needs Django and older versions of what ATP
uses. It takes events; check-ins it throws away, so those are read at a scripted sink (`tests/telemetry/sinks.py`).
"""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from service.embedded.folder import StateFolder
from service.embedded.ports import HOST, answers
from service.embedded.processes import Child, Command
from tests.observability.tools import missing
from tests.ports import reserved_port
from tests.servers import run

ROOT = Path(__file__).parents[2]
TOOL = ROOT / ".tools" / "bugsink"
BIN = TOOL / "bin"
LOCK = ROOT / "requirements" / "bugsink.txt"
PIP = next((ROOT / "requirements").glob("pip-*.whl")) / "pip"
INSTALL_S, MANAGE_S, READY_S = 300, 60, 30.0
READY = b"GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"

# Tasks run where they arise, so that an event is there once it is answered for. No one is called home.
CONFIGURATION = """
from bugsink.settings.default import *
SECRET_KEY = "of-a-server-that-lives-as-long-as-a-test-and-holds-nothing"
DATABASES["default"]["NAME"] = "{folder}/db.sqlite3"
DATABASES["snappea"]["NAME"] = "{folder}/snappea.sqlite3"
TIME_ZONE = "UTC"
SNAPPEA = {{"TASK_ALWAYS_EAGER": True}}
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
BUGSINK = {{"PHONEHOME": False, "BASE_URL": "http://127.0.0.1", "INGEST_STORE_BASE_DIR": "{folder}/ingestion"}}
"""
NEW_PROJECT = "from projects.models import Project; Project.objects.create(name='atp', alert_on_new_issue=False)"


class Bugsink:
    """One project. An issue is a group of events; the rows are read from its database. It may be stopped and started,
    and keeps its port and what it has."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder
        self._child: Child

    async def start(self) -> None:
        command = [BIN / "gunicorn", "--bind", f"{HOST}:{self.port}", "--threads", "4", "--log-level", "warning"]
        argv = ["/usr/bin/env", f"PYTHONPATH={self.folder}", *command, "bugsink.wsgi"]
        self._child = Child(StateFolder(self.folder), "bugsink", Command(argv, signal.SIGQUIT, cwd=self.folder))
        await self._child.ready(lambda: answers(self.port, READY, b" 200 "), READY_S)

    async def stop(self) -> None:
        await self._child.stop()

    @property
    def dsn(self) -> str:
        (key,) = self._rows("SELECT sentry_key FROM projects_project")[0]
        return f"http://{UUID(key).hex}@{HOST}:{self.port}/1"

    def events(self, issue: str = "") -> list[dict[str, Any]]:
        """As they were sent, in the order of their coming; of the issue with this fingerprint if one is given."""
        found = [
            json.loads(data) for (data,) in self._rows("SELECT data FROM events_event ORDER BY project_digest_order")
        ]
        return [event for event in found if not issue or "|".join(event.get("fingerprint", [])) == issue]

    def issues(self) -> list[tuple[str, int]]:
        """What each is called, and how many events it has."""
        return self._rows("SELECT calculated_value, digested_event_count FROM issues_issue ORDER BY digest_order")

    def clear(self) -> None:
        """Nothing was ever sent."""
        with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=5)) as database, database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            sent = ("tags_", "events_", "issues_", "releases_")
            for table in [name for name in tables if name.startswith(sent)]:
                database.execute(f'DELETE FROM "{table}"')  # noqa: S608 - of the database's own list
            database.execute(
                "UPDATE projects_project SET quota_exceeded_until = NULL, next_quota_check = 0, issue_count = 0,"
                " digested_event_count = 0, stored_event_count = 0"
            )

    def _rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=5)) as database:
            return database.execute(sql).fetchall()


@contextmanager
def bugsink(folder: Path) -> Iterator[Bugsink]:
    """Started in `folder` with a copy of the prepared database."""
    if why_not := prepare():
        missing(why_not)
    StateFolder.open(folder)
    for name in ("db.sqlite3", "snappea.sqlite3"):
        shutil.copy(TOOL / "template" / name, folder / name)
    configure(folder)
    with reserved_port() as port:
        server = Bugsink(port, folder)
        try:
            run(server.start())
            yield server
        finally:
            run(server.stop())


def prepare() -> str:
    """Install it and make its database, once for a checkout and a lock file; others wait meanwhile. Says why not."""
    TOOL.parent.mkdir(exist_ok=True)
    done = TOOL / "template" / "lock.txt"
    with (TOOL.parent / "bugsink.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == LOCK.read_text():
            return ""
        try:
            install()
            make_template()
        except (subprocess.SubprocessError, OSError) as error:
            return f"bugsink cannot be installed: {type(error).__name__}"
        done.write_text(LOCK.read_text())
        return ""


def install() -> None:
    shutil.rmtree(TOOL, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", TOOL], check=True, timeout=INSTALL_S)
    pinned = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)]
    quiet = ["--no-input", "--disable-pip-version-check", "--quiet"]
    subprocess.run([BIN / "python", PIP, "install", *quiet, *pinned], check=True, timeout=INSTALL_S)


def make_template() -> None:
    folder = TOOL / "template"
    folder.mkdir()
    configure(folder)
    for words in (["migrate"], ["migrate", "--database", "snappea"], ["shell", "-c", NEW_PROJECT]):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [BIN / "python", BIN / "bugsink-manage", *words]
        subprocess.run(command, check=True, timeout=MANAGE_S, env=environment, stdout=subprocess.DEVNULL)


def configure(folder: Path) -> None:
    (folder / "bugsink_conf.py").write_text(CONFIGURATION.format(folder=folder))
