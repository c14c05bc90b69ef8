"""Redis clients by URL: standalone, Sentinel or Cluster, every call bounded, driver errors translated once.

| URL | what |
|---|---|
| `redis://user:pw@host:6379/0`, `rediss://…` | one server (TLS with `rediss`) |
| `redis+sentinel://:pw@host:26379,host:26379/service/0` | the primary that the sentinels name `service` |
| `redis+cluster://:pw@host:7000,host:7001` | a cluster, found through any of these nodes |

The library's defaults retry ten times with long timeouts: a silent server would hold one GET for a minute. Here a call
gets REDIS_REQUEST_TIMEOUT and no retry; the breaker and memory are the retry. Commands must be idempotent.
Blocking reads go through a RedisState of their own, with a longer deadline, so that none of them waits in the way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterError, ConnectionError, ReadOnlyError, RedisError, TimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import SettingsError, StateRejected, StateUnavailable
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.operations import Operations

log = structlog.get_logger()

Result = TypeVar("Result")
Client = Any  # Redis | RedisCluster: the library's own annotations mix sync and async results

CLOSE_TIMEOUT_S = 1.0
REDIS_PORT = 6379
DEFAULT_PORTS = {"redis+sentinel": 26379, "redis+cluster": REDIS_PORT}
# What an outage, a failover or a loading server looks like.
AWAY = (ConnectionError, TimeoutError, ReadOnlyError, ClusterError, OSError, asyncio.TimeoutError)
# What uvloop says, and redis-py passes on, of a write to a connection that was reset a moment ago.
UVLOOP_CLOSED = "the handler is closed"


@dataclass(frozen=True)
class Address:
    """A parsed `redis+sentinel://` or `redis+cluster://` URL."""

    hosts: list[tuple[str, int]]
    username: str | None
    password: str | None
    path: list[str]


class RedisState:
    """One Redis, as the capabilities use it: `await redis.run("publish", lambda r: r.xadd(…))`."""

    def __init__(self, settings: Settings, metrics: Metrics, timeout_s: float | None = None) -> None:
        """`timeout_s` is the deadline of a call, REDIS_REQUEST_TIMEOUT unless told; connecting never gets longer."""
        self.timeout_s = timeout_s or settings.redis_request_timeout
        self._operations = Operations(metrics, "redis", server_of(settings.redis_url.get_secret_value()))
        self._client, *self._companions = connect(settings, self.timeout_s)

    @property
    def sharded(self) -> bool:
        """Whether it is a cluster, where one script may touch the keys of one slot only."""
        return isinstance(self._client, RedisCluster)

    async def run(self, operation: str, call: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run one idempotent operation under the deadline.

        Raises:
            StateUnavailable: Redis is away, silent or failing over.
            StateRejected: it answered, with an error.
        """
        with self._operations(operation):
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await call(self._client)
            except (RedisError, *AWAY) as error:
                raise state_error(operation, error) from error
            except RuntimeError as error:
                if UVLOOP_CLOSED not in str(error):
                    raise
                raise StateUnavailable(f"{operation}: ConnectionError") from error

    async def ping(self) -> None:
        await self.run("ping", lambda client: client.ping())

    async def stats(self) -> dict[str, int]:
        """What Redis says of its memory, in bytes; a cluster's nodes together. Raises as `run`."""
        info = await self.run("info", lambda client: client.info("memory"))
        nodes = [info] if "used_memory" in info else list(info.values())
        return {
            "memory_used_bytes": sum(node["used_memory"] for node in nodes),
            "memory_max_bytes": sum(node["maxmemory"] for node in nodes),
        }

    async def close(self) -> None:
        for client in (self._client, *self._companions):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await client.aclose()
            except (RedisError, *AWAY):
                continue  # a server that is gone has nothing left to be told


def server_of(url: str) -> dict[str, str | int]:
    """For spans: the one server's address. Of Sentinel's and of a cluster it is not known which one answers."""
    try:
        parts = urlsplit(url)
        single = parts.scheme in ("redis", "rediss") and parts.hostname
        return {"server.address": single, "server.port": parts.port or REDIS_PORT} if single else {}
    except ValueError:  # refused elsewhere, with words
        return {}


def state_error(operation: str, error: Exception) -> StateUnavailable:
    """What a driver's exception is to the capabilities."""
    if isinstance(error, AWAY):
        return StateUnavailable(f"{operation}: {type(error).__name__}")
    log.error("redis.rejected", operation=operation, error=str(error)[:200])
    return StateRejected(f"{operation}: {type(error).__name__}")


def connect(settings: Settings, timeout_s: float) -> list[Client]:
    """A client for REDIS_URL, and those it works through (sentinels), to be closed too; no connection is made yet.

    Raises:
        SettingsError: the URL has a scheme or shape we do not know.
    """
    try:
        return clients(settings, settings.redis_url.get_secret_value(), timeout_s)
    except ValueError:  # its text may hold the password
        raise SettingsError("REDIS_URL: port and database must be numbers") from None


def clients(settings: Settings, url: str, timeout_s: float) -> list[Client]:
    options = connection_options(settings, timeout_s)
    match urlsplit(url).scheme:
        case "redis" | "rediss":
            pool = BlockingConnectionPool.from_url(
                url, max_connections=settings.redis_max_connections, timeout=settings.redis_request_timeout, **options
            )
            return [Redis.from_pool(pool)]
        case "redis+sentinel":
            return sentinel_clients(parse(url), settings, options)
        case "redis+cluster":
            return [cluster_client(parse(url), settings, options)]
    raise SettingsError("REDIS_URL: must start with redis://, rediss://, redis+sentinel:// or redis+cluster://")


def connection_options(settings: Settings, timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.redis_request_timeout,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "atp",
        # "auto" makes cancelled reads unsafe and serves managed clouds only.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def sentinel_clients(address: Address, settings: Settings, options: dict[str, Any]) -> list[Client]:
    service, db = (*address.path, "0")[:2] if address.path else ("", "0")
    if not service:
        raise SettingsError("REDIS_URL: a sentinel URL names its service: redis+sentinel://host:26379/mymaster/0")
    # Sentinel's own clients inherit only socket_* options; without these they would retry ten times. They answer at
    # once or not at all, whatever deadline the primary has.
    asking = connection_options(settings, settings.redis_request_timeout)
    sentinel = Sentinel(address.hosts, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
    primary = sentinel.master_for(
        service,
        db=int(db),
        username=address.username,
        password=address.password,
        max_connections=settings.redis_max_connections,
    )
    return [primary, *sentinel.sentinels]


def cluster_client(address: Address, settings: Settings, options: dict[str, Any]) -> Client:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        username=address.username,
        password=address.password,
        max_connections=settings.redis_max_connections,
        **options,
    )


def parse(url: str) -> Address:
    """Split a URL with several hosts, which the library itself does not read."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    default = DEFAULT_PORTS[parts.scheme]
    try:
        pairs = [host.rpartition(":") for host in hosts.split(",") if host]
        addresses = [(name, int(port)) if name else (port, default) for name, _, port in pairs]
    except ValueError:
        raise SettingsError("REDIS_URL: hosts must look like host:port,host:port") from None
    return Address(
        addresses,
        unquote(username) or None,
        unquote(password) or None,
        [part for part in parts.path.split("/") if part],
    )
