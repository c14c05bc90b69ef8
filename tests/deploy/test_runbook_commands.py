"""What runbooks ask of Redis, on a real server, by the users that compose.yaml makes, and with no more rights."""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.deploy.test_compose import ROOT, make_secrets
from tests.servers import OwnValkey

WRITTEN = [
    (file.stem, command)
    for file in sorted((ROOT / "observability" / "prometheus" / "runbooks").glob("*.md"))
    for command in re.findall(r"`redis-cli ([^`]*)`", " ".join(file.read_text().split()))
]
URLS = {"$REDIS_URL": "atp/redis_url", "$OPERATOR": "valkey/operator_url"}
# What redis-cli sends for an option of its own.
SENT = {
    "--latency": [["PING"]],
    "--bigkeys": [
        ["DBSIZE"],
        ["SCAN", "0"],
        ["TYPE", "k"],
        ["STRLEN", "k"],
        ["LLEN", "l"],
        ["HLEN", "h"],
        ["XLEN", "x"],
    ],
}


@pytest.fixture
def secrets(own_valkey: OwnValkey, tmp_path: Path) -> Path:
    """Those of compose.yaml; the server has their users."""
    make_secrets(tmp_path)
    with redis.Redis.from_url(own_valkey.url) as admin:
        for line in (tmp_path / "valkey" / "users.acl").read_text().splitlines()[1:]:
            admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        admin.set("k", "v")
    return tmp_path


def client(secrets: Path, file: str, port: int) -> "redis.Redis[bytes]":
    parts = urlsplit((secrets / file).read_text())
    return redis.Redis(host="127.0.0.1", port=port, username=parts.username, password=parts.password)


def test_there_are_such_commands_and_each_says_as_whom() -> None:
    assert {name for name, _ in WRITTEN} >= {"AtpDependencyDown", "AtpFleetSnapshotStale", "AtpRedisMemoryHigh"}
    assert [command for _, command in WRITTEN if not command.startswith(('-u "$REDIS_URL" ', '-u "$OPERATOR" '))] == []


@pytest.mark.parametrize(("runbook", "command"), WRITTEN)
def test_a_runbooks_command_is_allowed_to_whom_it_names(
    secrets: Path, own_valkey: OwnValkey, runbook: str, command: str
) -> None:
    _, url, *words = shlex.split(command)
    with client(secrets, URLS[url], urlsplit(own_valkey.url).port or 0) as asked:
        for sent in SENT.get(words[0], [words]):
            asked.execute_command(*sent)


def test_the_operator_empties_nothing_and_shuts_nothing_down(secrets: Path, own_valkey: OwnValkey) -> None:
    with client(secrets, "valkey/operator_url", urlsplit(own_valkey.url).port or 0) as operator:
        for command in (["FLUSHALL"], ["KEYS", "*"], ["SET", "k", "w"], ["DEL", "k"], ["SHUTDOWN"], ["ACL", "LIST"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                operator.execute_command(*command)
