"""Users and keys in a real database."""

import pytest

from service.db.pool import one_connection
from service.errors import Conflict, Invalid, NotFound
from service.keys import issuing, store


async def test_a_key_is_stored_as_a_hash_and_found_by_it(database_url: str) -> None:
    async with one_connection(database_url) as connection:
        user = await issuing.create_user(connection, "ana", "ana@example.org")
        minted = await issuing.create_key(connection, "ana", "laptop", ["chat"], days=1)
        row = await store.select_key(connection, minted.digest)
        columns = await (await connection.execute("SELECT * FROM api_keys")).fetchall()
    assert row is not None
    assert (row.user_id, row.scopes, row.prefix, row.role) == (user.id, ["chat"], minted.prefix, "user")
    assert row.expires_at is not None
    assert minted.text[18:] not in repr(columns)


async def test_a_username_or_email_is_taken_once(database_url: str) -> None:
    async with one_connection(database_url) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
    for username, email in (("ana", "b@example.org"), ("b", "ANA@example.org")):
        with pytest.raises(Conflict):
            async with one_connection(database_url) as connection:
                await issuing.create_user(connection, username, email)


async def test_an_unknown_user_scope_or_key_is_said(database_url: str) -> None:
    async with one_connection(database_url) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
        with pytest.raises(NotFound, match="no user 'bob'"):
            await issuing.create_key(connection, "bob", "x")
        with pytest.raises(Invalid, match="no scope 'fly'"):
            await issuing.create_key(connection, "ana", "x", ["fly"])
        with pytest.raises(NotFound, match="no key 'nope'"):
            await issuing.revoke_key(connection, "nope")


async def test_revoking_twice_keeps_the_first_time(database_url: str) -> None:
    async with one_connection(database_url) as connection:
        await issuing.create_user(connection, "ana", "ana@example.org")
        minted = await issuing.create_key(connection, "ana", "x")
        assert await issuing.revoke_key(connection, minted.prefix) == minted.digest
    async with one_connection(database_url) as connection:
        first = (await store.select_keys(connection, "ana"))[0].revoked_at
        await issuing.revoke_key(connection, minted.prefix)
        assert (await store.select_keys(connection, "ana"))[0].revoked_at == first
