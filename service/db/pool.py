"""The PostgreSQL pool, and the watch that renews it after an outage.

Two faults of an outage are mended here:

- A psycopg pool that lost its server backs off to minutes, so that a database that is back stays unused. A watch on a
  connection of its own sees the server return and puts a fresh pool in the old one's place.
- A cancelled psycopg call first asks the server to cancel the query and waits up to 5 s for it, twice: against a frozen
  server an asyncio timeout of 0.5 s took 11 s. So a deadline does not cancel: it shuts the socket down, and the call
  ends at once with a connection error.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from service.background import end
from service.db.recent import RecentPool
from service.db.server import server_of
from service.errors import Conflict, DatabaseRejected, DatabaseUnavailable, SettingsError, last_line
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.operations import Operations

log = structlog.get_logger()

# Callers beyond this queue for nothing: they would time out anyway.
MAX_WAITING = 200
# A connection lent so lately is lent again without asking its server: the question is a round trip.
TRUSTED_S = 1.0
WATCH_EVERY_S = 1.0
WATCH_TIMEOUT_S = 1.0
# One look that takes over a second is a busy machine; a second one at once, on a new connection, is an outage.
FAILURES_TO_BE_DOWN = 2
RECONNECT_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3
AWAY_TEXT = "The database is temporarily unavailable."
# InternalError: a server that became a read-only replica, for one.
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    PoolTimeout,
    TooManyRequests,
    TimeoutError,
)


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Translate psycopg's errors to ours, once."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise Conflict("Something with that name exists already.") from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise DatabaseRejected("The database refused the data.") from error
    except AWAY as error:
        raise DatabaseUnavailable(AWAY_TEXT) from error


@contextlib.contextmanager
def severed_after(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer; what waits on it then raises OperationalError."""
    timer = asyncio.get_running_loop().call_later(seconds, sever, connection)
    try:
        yield
    finally:
        timer.cancel()


def sever(connection: AsyncConnection[Any]) -> None:
    """Shut the socket down, not close it: libpq still owns the descriptor and reads the end of file from it."""
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as duplicate, contextlib.suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def one_connection(dsn: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A single connection in a transaction, for commands that do not serve.

    Raises as `Database.connection`, with the server's reason; SettingsError when the tables are not there.
    """
    try:
        with database_errors():
            async with await AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
                yield connection
    except psycopg.errors.UndefinedTable:
        raise SettingsError("the database has no tables yet: run `atp migrate`") from None
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(f"cannot use the database: {last_line(error.__cause__)}") from None


class Database:
    """Connections to PostgreSQL with a bound on every wait.

    `async with Database(settings, metrics) as db: async with db.connection("select_key") as c: …`
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._dsn = settings.database_url.get_secret_value()
        self.timeout_s = settings.db_timeout
        self._operations = Operations(metrics, "postgresql", server_of(self._dsn))
        self._lent: WeakKeyDictionary[AsyncConnection[Any], float] = WeakKeyDictionary()
        self._pool = self._make_pool()
        self._up = True
        self._failures = 0
        self._watch: asyncio.Task[None] | None = None

    def _make_pool(self) -> AsyncConnectionPool:
        kept = self._settings.db_pool_size
        return RecentPool(
            self._dsn,
            min_size=kept,
            max_size=kept + self._settings.db_max_overflow,
            open=False,
            timeout=self.timeout_s,
            max_waiting=MAX_WAITING,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            check=self._check,
            # A server-side plan belongs to one connection; PgBouncer in transaction mode moves us between them.
            kwargs={"prepare_threshold": None, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "atp"},
        )

    async def __aenter__(self) -> "Database":
        await self._pool.open()
        self._metrics.observe_pool("postgresql", self.stats)
        self._metrics.dependency_up.labels("postgresql").set_function(lambda: self._up)
        self._watch = asyncio.create_task(self._watch_server(), name="database-watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            await end(self._watch)
            # Its last traceback leads back to us: a circle that kept a half-open connection until the next collection,
            # and PostgreSQL waits with a DROP DATABASE, any, for one that is still logging in, up to a minute.
            self._watch = None
        await self._pool.close(timeout=2)

    async def execute(self, operation: str, sql: str, parameters: Sequence[Any]) -> None:
        """Run one statement that is its own transaction; raises as `connection`."""
        async with self.statement(operation) as connection:
            await connection.execute(sql.encode(), parameters)

    @contextlib.asynccontextmanager
    async def statement(self, operation: str) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection for one statement that is its own transaction: one round trip, not three; raises as below."""
        async with self._borrowed(operation) as connection:
            await connection.set_autocommit(True)
            try:
                yield connection
            finally:
                if not connection.closed:
                    await connection.set_autocommit(False)

    @contextlib.asynccontextmanager
    async def connection(self, operation: str) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection in a transaction: committed on leaving, rolled back on an exception; all within DB_TIMEOUT.

        Raises:
            Conflict: a unique value is taken.
            DatabaseUnavailable: no connection in time, the server is away, or the work took longer than DB_TIMEOUT.
        """
        async with self._borrowed(operation) as connection, connection:  # a pooled connection is not closed
            yield connection

    @contextlib.asynccontextmanager
    async def _borrowed(self, operation: str) -> AsyncIterator[AsyncConnection[Any]]:
        if not self._up:
            raise DatabaseUnavailable(AWAY_TEXT)
        pool = self._pool  # the watch may replace it meanwhile
        with self._operations(operation) as seen, database_errors():
            started = time.perf_counter()
            connection = await pool.getconn()
            try:
                seen.waited(self._metrics.pool_wait.labels("postgresql"), time.perf_counter() - started)
                with severed_after(connection, self.timeout_s):
                    yield connection
            finally:
                await pool.putconn(connection)

    async def _check(self, connection: AsyncConnection[Any]) -> None:
        """Before a connection is lent that has been idle for a while: is its server still there?"""
        now = time.monotonic()
        idle_s, self._lent[connection] = now - self._lent.get(connection, 0.0), now
        if idle_s < TRUSTED_S:
            return
        with severed_after(connection, self.timeout_s / 2):
            await AsyncConnectionPool.check_connection(connection)

    @property
    def up(self) -> bool:
        """Whether the watch's last look found the server answering."""
        return self._up

    def stats(self) -> dict[str, int]:
        """Connections idle and used, the most there may be, and callers that wait for one."""
        stats = self._pool.get_stats()
        size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
        return {"idle": idle, "used": size - idle, "max": stats["pool_max"], "pending": stats["requests_waiting"]}

    async def _watch_server(self) -> None:
        while True:
            try:
                await self._stay_connected()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._failures += 1
                if self._failures >= FAILURES_TO_BE_DOWN:
                    self._went_down(error)
                    await asyncio.sleep(WATCH_EVERY_S)

    async def _stay_connected(self) -> None:
        """Ask the server every second on one connection; returns only by raising."""
        async with asyncio.timeout(WATCH_TIMEOUT_S):
            connection = await AsyncConnection.connect(self._dsn, autocommit=True, application_name="atp-watch")
        try:
            while True:
                with severed_after(connection, WATCH_TIMEOUT_S):
                    await connection.execute("SELECT 1")
                await self._came_back()
                await asyncio.sleep(WATCH_EVERY_S)
        finally:
            await connection.close()

    def _went_down(self, error: Exception) -> None:
        if self._up:
            self._up = False
            log.error("database.unavailable", error=type(error).__name__)

    async def _came_back(self) -> None:
        self._failures = 0
        if self._up:
            return
        stale, self._pool = self._pool, self._make_pool()
        await self._pool.open()
        self._up = True
        log.info("database.recovered")
        await stale.close(timeout=1)
