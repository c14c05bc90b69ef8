"""What each `atp` command does; all take the parsed arguments and the settings, and return the exit code."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC

from service.admin.store import insert_backup
from service.db.migrate import migrate as migrate_database
from service.db.pool import one_connection
from service.errors import StateUnavailable
from service.keys import issuing, store, user_store
from service.keys.issuing import Minted, Wish
from service.keys.revocations import RedisRevocations
from service.settings import Settings
from service.state.redis import RedisState
from service.telemetry import logging
from service.telemetry.metrics import Metrics


async def serve(arguments: Namespace, settings: Settings) -> int:
    if arguments.processes > 1:
        return await supervised(settings, arguments.processes)
    from service.serving import serve as serve_node

    await serve_node(settings, arguments.index or 0, reuse_port=arguments.index is not None)
    return 0


async def supervised(settings: Settings, processes: int) -> int:
    """Find a fault of configuration here, once; a child that fails at its start is started again for ever."""
    from service.server.supervisor import supervise
    from service.serving import require_tables
    from service.wiring import require_sound

    await require_sound(settings)
    await require_tables(settings)
    writer = logging.configure(settings, dropped=lambda: None)
    try:
        return await supervise(settings, processes)
    finally:
        writer.close()


async def worker(arguments: Namespace, settings: Settings) -> int:
    from service.working import work

    await work(settings, arguments.concurrency or settings.worker_concurrency, arguments.queues or [])
    return 0


async def alert_bridge(arguments: Namespace, settings: Settings) -> int:
    from service.bridging import bridge

    await bridge(settings)
    return 0


async def dev(arguments: Namespace, settings: Settings) -> int:
    from service.embedded.dev import run

    return await run(settings)


async def doctor(arguments: Namespace, settings: Settings) -> int:
    from service.doctor import examine

    return await examine(settings)


async def migrate(arguments: Namespace, settings: Settings) -> int:
    applied = await migrate_database(dsn(settings))
    print("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0


async def backup_done(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        at = await insert_backup(connection, arguments.bytes, arguments.place)
    moment = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    print(f"backup of {moment} recorded: {arguments.bytes} bytes at {arguments.place}")
    return 0


async def openapi(arguments: Namespace, settings: Settings) -> int:
    from service.wiring.docs import api_document

    print(json.dumps(api_document(), indent=2, ensure_ascii=False))
    return 0


async def users_create(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        user = await issuing.create_user(connection, arguments.username, arguments.email, arguments.role)
    print(user.id)
    return 0


async def users_list(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        users = await user_store.select_users(connection)
    table(["ID", "USERNAME", "EMAIL", "ROLE", "ACTIVE"], [[u.id, u.username, u.email, u.role, u.active] for u in users])
    return 0


async def users_change(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        user_id = await issuing.user_id_of(connection, arguments.user)
        user, key_hashes = await issuing.change_user(connection, user_id, arguments.role, arguments.active)
    late = await announced(settings, *key_hashes)
    print(f"{user.username} is {'an active' if user.active else 'an inactive'} {user.role}{late}")
    return 0


async def keys_create(arguments: Namespace, settings: Settings) -> int:
    scopes = arguments.scope or issuing.DEFAULT_SCOPES
    async with one_connection(dsn(settings)) as connection:
        wish = Wish(arguments.name, scopes, days=arguments.days, rate_limits=dict(arguments.limit or ()))
        user_id = await issuing.user_id_of(connection, arguments.user)
        minted = await issuing.mint(connection, user_id, wish, settings.keys_per_user)
    return show_once(minted)


def show_once(minted: Minted) -> int:
    print(minted.token.text)
    print("Keep it now: it is stored as a hash and cannot be shown again.", file=sys.stderr)
    return 0


async def keys_list(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        keys = await store.select_keys(connection, arguments.user)
    rows = [[k.prefix, k.name, k.user_id, ",".join(k.scopes), shown(k.expires_at), shown(k.revoked_at)] for k in keys]
    table(["PREFIX", "NAME", "USER", "SCOPES", "EXPIRES", "REVOKED"], rows)
    return 0


async def keys_revoke(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        key_hash = await issuing.revoke_key(connection, arguments.prefix)
    print(f"revoked{await announced(settings, key_hash)}")
    return 0


async def keys_rotate(arguments: Namespace, settings: Settings) -> int:
    async with one_connection(dsn(settings)) as connection:
        rotated = await issuing.rotate(connection, arguments.prefix, arguments.grace, settings.keys_per_user)
    late = await announced(settings, rotated.old_hash)
    print(f"{arguments.prefix} ends in {arguments.grace} s{late}", file=sys.stderr)
    return show_once(rotated.minted)


async def announced(settings: Settings, *key_hashes: bytes) -> str:
    """What there is to add to the good news."""
    told = [await announce(key_hash, settings) for key_hash in key_hashes]
    return "" if all(told) else "; there is no Redis to announce it through, so running nodes notice within 30 s"


async def announce(key_hash: bytes, settings: Settings) -> bool:
    """Tell the running nodes; False when there is no Redis to tell them through."""
    if not settings.redis_url.get_secret_value():
        return False
    redis = RedisState(settings, Metrics())
    try:
        await RedisRevocations(redis).publish(key_hash)
    except StateUnavailable:
        return False
    finally:
        await redis.close()
    return True


def dsn(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


def shown(moment: object) -> str:
    return str(moment)[:19] if moment else "-"


def table(head: list[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell."""
    texts = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
