"""The `atp` command."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from service import commands
from service.errors import AtpError
from service.keys.issuing import GRACE_S, MOST_GRACE_S, POLICIES
from service.keys.store import SCOPES
from service.server.listener import PortTaken
from service.setting_types import rate
from service.settings import load

LONGEST_DAYS = 36_500
EPILOG = """Settings are environment variables; docs/settings.md lists them all. `atp doctor` tries what they name."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="atp", description="Agentic Task Platform.", epilog=EPILOG)
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = sub.add_parser("serve", help="run this node with the PostgreSQL, Redis and models of the settings")
    serve.add_argument("--processes", type=positive, default=1, metavar="N", help="one supervised process per core")
    serve.add_argument("--index", type=int, default=None, help=argparse.SUPPRESS)  # set by the supervisor
    serve.set_defaults(run=commands.serve)

    worker = sub.add_parser("worker", help="answer tasks from the queue, until it is stopped")
    worker.add_argument("--concurrency", type=positive, metavar="N", help="tasks at a time (WORKER_CONCURRENCY)")
    queues = ("chat", "callbacks")
    worker.add_argument("--queues", nargs="+", choices=queues, help="only of these queues (default: of all)")
    worker.set_defaults(run=commands.worker)

    bridge = sub.add_parser("alert-bridge", help="pass Alertmanager's alerts on to Sentry, until it is stopped")
    bridge.set_defaults(run=commands.alert_bridge)

    dev = sub.add_parser("dev", help="run everything here: embedded PostgreSQL, Valkey and a small model")
    dev.set_defaults(run=commands.dev)

    migrate = sub.add_parser("migrate", help="bring the database's tables up to date")
    migrate.set_defaults(run=commands.migrate)

    doctor = sub.add_parser("doctor", help="try every configured dependency and say what to do; exit code 1 on faults")
    doctor.set_defaults(run=commands.doctor)

    backup = sub.add_parser("backup-done", help="record that a backup was made: the alerts on its age go by this")
    backup.add_argument("bytes", type=positive, metavar="BYTES", help="its size")
    backup.add_argument("place", type=place, metavar="PLACE", help="where it is kept; for people, without passwords")
    backup.set_defaults(run=commands.backup_done)

    openapi = sub.add_parser("openapi", help="print the OpenAPI document, as GET /openapi.json answers it")
    openapi.set_defaults(run=commands.openapi)

    add_users(sub)
    add_keys(sub)
    return top


def add_users(sub: Any) -> None:
    users = sub.add_parser("users", help="create, list and change users").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = users.add_parser("create", help="create a user; prints its id")
    create.add_argument("username")
    create.add_argument("email")
    create.add_argument("--role", choices=("user", "admin"), default="user")
    create.set_defaults(run=commands.users_create)
    listed = users.add_parser("list", help="list users")
    listed.set_defaults(run=commands.users_list)
    add_user_changes(users)


def add_user_changes(users: Any) -> None:
    deactivate = users.add_parser("deactivate", help="shut a user out on every node")
    deactivate.set_defaults(run=commands.users_change, active=False, role=None)
    activate = users.add_parser("activate", help="let a user in again, with the keys they had")
    activate.set_defaults(run=commands.users_change, active=True, role=None)
    role = users.add_parser("role", help="give a user another role")
    role.set_defaults(run=commands.users_change, active=None)
    for action in (deactivate, activate, role):
        action.add_argument("user", help="username or id")
    role.add_argument("role", choices=("user", "admin"))


def add_keys(sub: Any) -> None:
    keys = sub.add_parser("keys", help="create, list, rotate and revoke API keys").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = keys.add_parser("create", help="create a key; prints it, once")
    create.add_argument("user", help="username or id of the owner")
    create.add_argument("--name", default="default", help="what the key is for (default: %(default)s)")
    create.add_argument(
        "--scope", action="append", choices=SCOPES, help="may be given several times (default: chat and read)"
    )
    create.add_argument("--days", type=days, help="days until it expires (default: never)")
    create.add_argument(
        "--limit", action="append", type=limit, metavar="chat=300/minute", help="a limit of its own, by policy"
    )
    create.set_defaults(run=commands.keys_create)
    listed = keys.add_parser("list", help="list keys by their public prefix")
    listed.add_argument("--user", help="only this user's")
    listed.set_defaults(run=commands.keys_list)
    revoke = keys.add_parser("revoke", help="revoke a key on every node")
    revoke.add_argument("prefix", help="the 8 characters after atp_live_")
    revoke.set_defaults(run=commands.keys_revoke)
    rotate = keys.add_parser("rotate", help="put a new key in the place of one; prints it, once")
    rotate.add_argument("prefix", help="the 8 characters after atp_live_")
    rotate.add_argument(
        "--grace", type=grace, default=GRACE_S, metavar="SECONDS", help="the old one is good for (default: %(default)s)"
    )
    rotate.set_defaults(run=commands.keys_rotate)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def place(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def days(text: str) -> int:
    number = positive(text)
    if number > LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"must be at most {LONGEST_DAYS}")
    return number


def grace(text: str) -> int:
    seconds = int(text)
    if not 0 <= seconds <= MOST_GRACE_S:
        raise argparse.ArgumentTypeError(f"must be 0 to {MOST_GRACE_S}")
    return seconds


def limit(text: str) -> tuple[str, str]:
    """`chat=300/minute` as the policy and its rate."""
    policy, _, said = text.partition("=")
    if policy not in POLICIES:
        raise argparse.ArgumentTypeError(f"must be POLICY=RATE, where POLICY is one of {', '.join(POLICIES)}")
    try:
        return policy, rate(said)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{policy} {error}") from None


def main() -> int:
    """Parse, run, and turn every foreseen error into lines on stderr and exit code 1."""
    arguments = parser().parse_args()
    command: Callable[..., Coroutine[Any, Any, int]] = arguments.run
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(command(arguments, load()))
    except (AtpError, PortTaken) as error:
        print("\n".join(f"atp: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
