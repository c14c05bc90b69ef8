"""Every setting of ATP, typed, in one place. Names and defaults are the scaling guide's wherever it gives one.

Each setting is an environment variable of the same name in capitals. A setting marked secret is also read from the
file that `<NAME>_FILE` points to, the way Docker and Kubernetes hand secrets out. `docs/settings.md` is this module
as a table; a test holds the two together.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.errors import SettingsError
from service.setting_types import (
    BearerToken,
    Beginnings,
    Count,
    Months,
    Names,
    OneLine,
    Port,
    PostgresqlUrl,
    ProviderSettings,
    Rate,
    Seconds,
    Url,
    WebhookSecrets,
    Zone,
    blank_is_none,
    from_json,
    read_secret,
)

SECRETS = frozenset(
    {"database_url", "redis_url", "openai_api_key", "providers", "sentry_dsn", "task_callback_secret", "bridge_token"}
)


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `<NAME>_FILE` for the settings that are secret; the file's trailing newline is dropped."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{field_name.upper()}_FILE"
        path = os.environ.get(variable) if field_name in SECRETS else None
        return (read_secret(variable, Path(path)) if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """All settings; build with `load()`, which turns every fault into one clear line."""

    model_config = SettingsConfigDict(extra="ignore", enable_decoding=False, hide_input_in_errors=True)

    @model_validator(mode="after")
    def two_ports(self) -> "Settings":
        if self.port == self.private_port:
            raise ValueError(f"PORT and PRIVATE_PORT are both {self.port}; give them different numbers")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)

    environment: str = Field("development", description="Name of this deployment in logs, traces and Sentry")
    host: str = Field("127.0.0.1", description="Address the public port listens on")
    port: Port = Field(8000, description="Public port: REST, WebSocket, /healthz")
    private_host: str = Field("127.0.0.1", description="Address the private port listens on")
    private_port: Port = Field(9000, description="Private port: /metrics, /livez, /readyz; process i adds i")
    trusted_proxies: Names = Field([], description="Networks whose X-Forwarded-For is believed, e.g. 10.0.0.0/8")
    state_dir: Path = Field(Path(".atp"), description="Folder of `atp dev`: embedded data, keys, logs")

    database_url: PostgresqlUrl = Field(
        SecretStr("postgresql://user:password@localhost:5432/atp"), description="PostgreSQL, as a libpq URL"
    )
    db_pool_size: Count = Field(
        20,
        description="PostgreSQL connections each process keeps open; processes times both numbers must fit the server",
    )
    db_max_overflow: Annotated[int, Field(ge=0)] = Field(40, description="Further connections under load")
    db_timeout: Seconds = Field(2.0, description="Longest wait for a connection, and for a statement, in seconds")

    usage_spool_dir: Annotated[Path | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Folder where usage waits while PostgreSQL is away; default: spool in STATE_DIR"
    )
    usage_spool_bytes: Count = Field(268_435_456, description="Bytes each process may spool; then chats get 503")
    usage_retention_months: Months = Field(13, description="Months that usage rows and hourly sums are kept")
    usage_rollup_retention_months: Months = Field(36, description="Months that daily sums of usage are kept")

    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="redis://, rediss://, redis+sentinel://h:p,h:p/service/db or redis+cluster://h:p,h:p; "
        "empty: memory only",
    )
    redis_max_connections: Count = Field(50, description="Redis connections of each process at the most")
    redis_socket_timeout: Seconds = Field(5.0, description="Timeout of blocking reads off the request path, seconds")
    redis_request_timeout: Seconds = Field(
        0.3, description="Timeout of a Redis call on the request path, in seconds, before memory takes over"
    )

    rate_limit_chat: Rate = Field("30/minute", description="Chat requests a key may make")
    rate_limit_api: Rate = Field("60/minute", description="List and read requests a key may make")
    rate_limit_keys: Rate = Field("10/minute", description="Key management requests a key may make")
    rate_limit_admin: Rate = Field("100/minute", description="Admin requests a key may make")

    rate_limit_address: Rate = Field(
        "300/minute",
        description="Requests without a key from one address (an IPv6 /64); behind a proxy set TRUSTED_PROXIES",
    )
    rate_limit_auth_failures: Rate = Field(
        "20/minute", description="Refused keys from one address, before further unknown keys of it get 429"
    )
    streams_per_key: Count = Field(20, description="Streams, of answers or tasks, a key may have at once; more get 429")
    keys_per_user: Count = Field(100, description="Active API keys a user may have; more get 409")

    max_websocket_connections: Count = Field(10_000, description="WebSockets one node holds; more get 1013")
    websocket_timeout: Seconds = Field(300.0, description="Seconds without a client message before a socket closes")

    websockets_per_key: Count = Field(100, description="WebSockets one API key may hold on one node; more get 1008")
    websockets_per_address: Count = Field(
        1000, description="The same for one client address (an IPv6 /64); behind a proxy set TRUSTED_PROXIES"
    )
    websocket_origins: Names = Field(
        [], description="Origins of other sites whose pages may open WebSockets, e.g. https://chat.example; *: all"
    )
    node_name: str = Field("", description="This node's name in the fleet table; default: host name and process id")
    presence_zone: Zone = Field("UTC", description="Time zone whose midnight ends the day of peaks and active users")
    presence_shards: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Parts that presence is spread over in Redis Cluster; the same on every node. With more than one, "
        "peaks are sampled every 3 s",
    )

    cache_scope: Literal["shared", "user"] = Field(
        "shared", description="Whom a cached answer may be given to: everybody who asks the same, or only its own user"
    )
    agent_response_ttl: Count = Field(7200, description="Seconds an agent's answer stays cached")
    query_cache_ttl: Count = Field(1800, description="Seconds a multi-agent answer stays cached")
    cache_memory_bytes: Count = Field(67_108_864, description="Memory of each process for cached answers, in bytes")
    cache_max_entry_bytes: Count = Field(1_000_000, description="Largest answer that is cached, in bytes")
    catalogue_max_age: Annotated[int, Field(ge=0)] = Field(
        60, description="Seconds a client may keep the lists of agents and models; a CDN asks again each time"
    )
    user_session_ttl: Count = Field(86_400, description="Seconds a conversation is kept after its last message")
    session_max_messages: Count = Field(100, description="Messages kept of a conversation; the oldest go first")
    session_max_bytes: Count = Field(262_144, description="Bytes kept of a conversation; the oldest messages go first")
    tasks_per_user: Count = Field(10_000, description="Tasks a user may have waiting or running; more get 429")
    task_tries: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="How often a task is begun at the most, when model servers fail or workers die"
    )
    task_backoff: Seconds = Field(
        2.0, description="Seconds before a task is tried again after its first failure; then twice as long each time"
    )
    task_timeout: Seconds = Field(600.0, description="Longest run of a task, in seconds")
    task_result_bytes: Count = Field(
        1_000_000, description="Largest result of a task, in bytes of JSON; a larger one fails the task"
    )
    task_result_ttl: Count = Field(604_800, description="Seconds a task is kept after its end, with its result")
    task_callback_urls: Beginnings = Field(
        [], description="Where tasks may call back: beginnings of URLs, e.g. https://hooks.example/atp/; empty: nowhere"
    )
    task_callback_secret: WebhookSecrets = Field(
        SecretStr(""),
        description="Signs callbacks: whsec_ and base64, or 24 characters or more; a second one after a space while "
        "receivers change over; empty: unsigned",
    )
    task_callback_timeout: Seconds = Field(10.0, description="Seconds a receiver has to answer a callback")
    task_callback_backoff: Seconds = Field(
        5.0,
        description="Seconds before a callback is tried again after its first failure; then twice as long each time",
    )
    node_tasks: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="Tasks that a node runs itself at the same time, as `atp dev` does; 0: workers run them all"
    )
    worker_concurrency: Count = Field(8, description="Tasks a worker runs at the same time")
    worker_drain: Seconds = Field(20.0, description="Seconds a worker that stops waits for its tasks to end")
    worker_dead_after: Seconds = Field(
        15.0, description="Seconds without a sign of life after which a worker's tasks are given to others"
    )

    sessions_per_user: Count = Field(1000, description="Conversations kept of a user; those silent longest go first")

    openai_base_url: Url = Field("https://api.openai.com/v1", description="OpenAI-compatible server of the models")
    openai_api_key: OneLine = Field(SecretStr(""), description="Its key")
    openai_models: Names = Field(["gpt-4o-mini"], description="Models asked of it; the first is the default model")
    providers: Annotated[dict[str, ProviderSettings], BeforeValidator(from_json)] = Field(
        default_factory=dict,
        description="Several servers at once, as JSON: {name: {base_url, api_key|api_key_file, models: {model: "
        "{input_usd_per_mtok, output_usd_per_mtok}}, extra_body}}; replaces OPENAI_*",
    )
    agents_file: Annotated[Path | None, BeforeValidator(blank_is_none)] = Field(
        None, description="TOML file of agents; default: the five that ship with ATP"
    )
    llm_connect_timeout: Seconds = Field(3.0, description="Seconds to reach a model server")
    llm_first_token_timeout: Seconds = Field(30.0, description="Seconds to the first piece of an answer")
    llm_gap_timeout: Seconds = Field(15.0, description="Longest silence inside a streamed answer, in seconds")
    llm_total_timeout: Seconds = Field(120.0, description="Longest answer, in seconds")
    llm_max_response_bytes: Count = Field(4_000_000, description="Largest upstream answer, in bytes")
    llm_max_connections: Count = Field(1000, description="Simultaneous upstream calls of each process")

    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")
    access_log_sample: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Share of successful requests in the access log; errors are always logged"
    )
    otel_exporter_otlp_endpoint: Url = Field("", description="OTLP/HTTP collector for traces; empty: no tracing")
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Share of traces kept when the caller sent no traceparent"
    )
    otel_traces_callers_per_minute: Annotated[int, Field(ge=0)] = Field(
        600, description="Traces a minute kept since a traceparent says so; beyond it OTEL_TRACES_SAMPLER_ARG decides"
    )
    sentry_dsn: SecretStr = Field(SecretStr(""), description="Sentry project; empty: errors are only logged")

    bridge_host: str = Field("127.0.0.1", description="Address that `atp alert-bridge` listens on")
    bridge_port: Port = Field(9095, description="Its port: /alerts for Alertmanager, /metrics, /livez, /readyz")
    bridge_token: BearerToken = Field(
        SecretStr(""), description="What Alertmanager sends it as bearer token: 24 characters or more"
    )


def load(**overrides: Any) -> Settings:
    """Settings from arguments, else the environment, else `*_FILE`, else the defaults.

    Raises:
        SettingsError: one line per fault, naming the variable, never its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = (f"{variable(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors())
        raise SettingsError("\n".join(faults)) from None


def variable(location: tuple[int | str, ...]) -> str:
    """`("providers", "local", "base_url")` to `PROVIDERS.local.base_url`; a fault between settings has no location."""
    first, *rest = map(str, location or ("settings",))
    return ".".join([first.upper(), *rest])
