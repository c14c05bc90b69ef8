"""Make every secret of compose.yaml, at random, and put each where its reader finds it; standard library only.

Usage: python make_secrets.py FOLDER

1. Passwords are made once and kept in FOLDER/kept/passwords.json, which nobody but this program reads.
2. Every file is written anew at each start, from the passwords and from OPENAI_API_KEY and SENTRY_DSN as they are now.
3. FOLDER/<reader>/ is the volume of one reader: it sees its own secrets and no other's. Files are the reader's, 0400.

It runs as root with no capability but CHOWN: it owns the folders, so it replaces files that it could not open.
"""

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

PASSWORDS = ("postgres", "atp", "grafana_reader", "grafana_admin", "valkey", "valkey_operator", "bridge")
# Who reads: the user of its image. ATP's is in the Dockerfile; the others are the images' own.
OWNERS = {"atp": 10001, "bridge": 10001, "postgres": 999, "valkey": 999, "alertmanager": 65534, "grafana": 472}
# The bridge does not start without Sentry, lest it be forgotten; `.invalid` (RFC 2606) tells it that there is none, and
# alerts wait in Alertmanager.
NO_SENTRY = "http://none@sentry.invalid/1"
# Everything ATP does, and nothing that empties the server, lists all its keys or changes its configuration.
ACL = """\
user default off
user atp on #{atp} ~* &* +@all -@admin -keys -flushall -flushdb -swapdb
user operator on #{operator} {may}
"""
# Whoever is on call: what runbooks ask of Redis. It reads, and changes the configuration until the next start.
OPERATOR = "~* &* +@read +@connection -keys +info +slowlog +latency +memory +client +config|get +config|set"


def main(folder: Path) -> None:
    passwords = kept(folder / "kept" / "passwords.json")
    for reader, files in contents(passwords, os.environ).items():
        for name, content in files.items():
            write(folder / reader / name, content, 0o400, OWNERS[reader])
    print(f"secrets of {', '.join(OWNERS)} are in place")


def kept(file: Path) -> dict[str, str]:
    """The passwords; those that are missing, at first all, are made. 43 characters that need no quoting in a URL."""
    known = json.loads(file.read_text()) if file.exists() else {}
    passwords = {name: known.get(name) or secrets.token_urlsafe(32) for name in PASSWORDS}
    write(file, json.dumps(passwords), 0o600)
    return passwords


def contents(passwords: dict[str, str], environment: "os._Environ[str] | dict[str, str]") -> dict[str, dict[str, str]]:
    """What each reader gets, by file name."""
    sentry = environment.get("SENTRY_DSN", "")
    return {
        "atp": {
            "database_url": f"postgresql://atp:{passwords['atp']}@postgres:5432/atp",
            "redis_url": f"redis://atp:{passwords['valkey']}@valkey:6379/0",
            "openai_api_key": environment.get("OPENAI_API_KEY", ""),
            "sentry_dsn": sentry,
        },
        "bridge": {"bridge_token": passwords["bridge"], "sentry_dsn": sentry or NO_SENTRY},
        "postgres": {name: passwords[name] for name in ("postgres", "atp", "grafana_reader")},
        "valkey": {
            "users.acl": ACL.format(
                atp=digest(passwords["valkey"]), operator=digest(passwords["valkey_operator"]), may=OPERATOR
            ),
            "operator_url": f"redis://operator:{passwords['valkey_operator']}@valkey:6379/0",
        },
        "alertmanager": {"bridge_token": passwords["bridge"]},
        "grafana": {name: passwords[name] for name in ("grafana_reader", "grafana_admin")},
    }


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def write(file: Path, content: str, mode: int, owner: int | None = None) -> None:
    """Whole or not at all; never readable by others, not even for a moment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as out:
        out.write(content)
    if owner is not None and os.geteuid() == 0:
        os.chown(new, owner, owner)
    new.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
