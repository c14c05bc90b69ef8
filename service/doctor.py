"""`atp doctor`: try every configured dependency as a node would; one line each on what is wrong and what to do."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from service.agents import catalogue
from service.agents.catalogue import Provider
from service.db.migrate import outstanding
from service.db.pool import one_connection
from service.errors import AtpError, DatabaseUnavailable, SettingsError, StateUnavailable, last_line
from service.settings import Settings
from service.state.redis import RedisState
from service.telemetry.metrics import Metrics

TIMEOUT_S = 5.0
OLDEST_POSTGRESQL = 140000


@dataclass(frozen=True)
class Fault(Exception):
    """What is wrong, and what to do about it."""

    what: str
    remedy: str


Check = Callable[[Settings], Awaitable[str]]


async def examine(settings: Settings) -> int:
    """Run every check; prints a line each; 1 when any found a fault."""
    checks: dict[str, Check] = {"PostgreSQL": postgresql, "Redis": redis, "agents": agents}
    if settings.task_callback_urls:
        checks["callbacks"] = callbacks
    if settings.otel_exporter_otlp_endpoint:
        checks["OTLP"] = otlp
    if settings.sentry_dsn.get_secret_value():
        checks["Sentry"] = sentry
    results = [await run(name, check(settings)) for name, check in checks.items()]
    for provider in provider_list(settings):
        results.append(await run(f"models of {provider.name}", models(provider)))
    return 0 if all(results) else 1


async def run(name: str, check: Awaitable[str]) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            print(f"ok     {name}: {await check}")
    except Fault as fault:
        print(f"FAULT  {name}: {fault.what}\n       -> {fault.remedy}", file=sys.stderr)
        return False
    except TimeoutError:
        print(f"FAULT  {name}: no answer in {TIMEOUT_S:.0f} s\n       -> is it frozen, or behind a firewall?",
              file=sys.stderr)  # fmt: skip
        return False
    return True


async def postgresql(settings: Settings) -> str:
    dsn = settings.database_url.get_secret_value()
    try:
        async with one_connection(dsn) as connection:
            version = connection.info.server_version
        missing = await outstanding(dsn)
    except DatabaseUnavailable as error:
        raise Fault(str(error), "check DATABASE_URL (postgresql://user:password@host:5432/atp)") from None
    if version < OLDEST_POSTGRESQL:
        raise Fault(f"server version {version // 10000} is too old", "use PostgreSQL 14 or newer")
    if missing:
        raise Fault(f"{missing} migration(s) not applied", "run `atp migrate`")
    return f"version {version // 10000}.{version % 10000}, tables up to date"


async def redis(settings: Settings) -> str:
    if not settings.redis_url.get_secret_value():
        return "not configured: this node keeps its state in memory and knows nothing of other nodes"
    try:
        state = RedisState(settings, Metrics())
        try:
            # The request-path deadline is for a warm pool; a first connection may take several round trips.
            await state.ping()
        finally:
            await state.close()
    except SettingsError as error:
        raise Fault(str(error).removeprefix("REDIS_URL: "), "mend REDIS_URL; docs/settings.md has its forms") from None
    except StateUnavailable as error:
        raise Fault(f"{error.__cause__ or error}", "check REDIS_URL; ATP runs without Redis, degraded") from None
    return f"answers within {settings.redis_request_timeout} s"


async def callbacks(settings: Settings) -> str:
    allowed = f"{len(settings.task_callback_urls)} beginning(s) of URLs allowed"
    if settings.task_callback_secret.get_secret_value():
        return f"{allowed}, signed"
    return f"{allowed}, NOT signed: receivers cannot tell them from anybody's; set TASK_CALLBACK_SECRET"


async def agents(settings: Settings) -> str:
    try:
        found = catalogue.load(settings)
    except AtpError as error:
        raise Fault(str(error), "check AGENTS_FILE and PROVIDERS") from None
    return f"{', '.join(found.agents)}; default model {found.default_model.id}"


def provider_list(settings: Settings) -> list[Provider]:
    try:
        found = catalogue.load_models(settings)
    except AtpError:
        return []  # the check of the agents has said so
    return list({model.provider.name: model.provider for model in found.values()}.values())


async def models(provider: Provider) -> str:
    headers = {"authorization": f"Bearer {provider.api_key}"} if provider.api_key else {}
    status = await answer("GET", f"{provider.base_url}/models", headers, "check OPENAI_BASE_URL or PROVIDERS")
    if status in (401, 403):
        raise Fault(f"{provider.base_url} refuses the key ({status})", "check OPENAI_API_KEY or the provider's api_key")
    if status != 200:
        raise Fault(f"{provider.base_url}/models answers {status}", "check that the base URL ends in /v1 or its like")
    return f"{provider.base_url} answers"


async def otlp(settings: Settings) -> str:
    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    headers = {"content-type": "application/x-protobuf"}
    status = await answer("POST", url, headers, "check OTEL_EXPORTER_OTLP_ENDPOINT (http://host:4318)")
    if status >= 400:
        raise Fault(f"{url} answers {status} to an empty export", "is this an OTLP/HTTP receiver?")
    return f"{url} accepts spans"


async def sentry(settings: Settings) -> str:
    """Sends an envelope with nothing in it: whoever does not know the DSN's key says so."""
    from sentry_sdk.utils import BadDsn, Dsn

    try:
        auth = Dsn(settings.sentry_dsn.get_secret_value()).to_auth("atp-doctor")
    except (BadDsn, ValueError):
        raise Fault("the DSN has no key, host or project", "copy it from the project's settings in Sentry") from None
    headers = {"x-sentry-auth": auth.to_header(), "content-type": "application/x-sentry-envelope"}
    status = await answer(
        "POST", auth.get_api_url(), headers, "check SENTRY_DSN and the way out of this network", b"{}\n"
    )
    if status in (401, 403, 404):
        raise Fault(f"{auth.host} refuses the DSN ({status})", "copy it from the project's settings in Sentry")
    return f"{auth.host} answers"


async def answer(method: str, url: str, headers: dict[str, str], remedy: str, body: bytes = b"") -> int:
    """The status a server answers with; raises Fault when it does not."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.request(method, url, headers=headers, data=body if method == "POST" else None) as response,
        ):
            return response.status
    except (aiohttp.ClientError, ValueError) as error:
        raise Fault(f"{url}: {last_line(error)}", remedy) from None
