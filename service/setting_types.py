"""The kinds of values that settings have, each with the complaint about one that is not of its kind.

A complaint never quotes the value: it may be a secret.
"""

import base64
import json
import re
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from service.errors import SettingsError
from service.plain_url import beginning

# What Redis and a 64-bit count hold with room to spare; \d would take every script's digits, $ a last line break.
RATE = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)")
SHORTEST_SECRET, LONGEST_SECRET = 24, 64


def rate(value: Any) -> str:
    """A rate as the `limits` library writes it: `30/minute`."""
    if not isinstance(value, str) or not RATE.fullmatch(value):
        raise ValueError("must look like 30/minute (a count, then second, minute, hour or day)")
    return value


def comma_separated(value: Any) -> Any:
    """`a, b` or `["a", "b"]` to a list; an empty string is an empty list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None


def blank_is_none(value: Any) -> Any:
    return None if value == "" else value


def web_address(value: str) -> str:
    """`http://host…` or `https://host…`, or empty."""
    if value and not re.match(r"^https?://[^/\s]+", value):
        raise ValueError("must begin with http:// or https:// and a host")
    return value


def beginnings(value: list[str]) -> list[str]:
    """Of URLs; one that is not plain would allow nothing."""
    if not all(beginning(url) for url in value):
        raise ValueError("each must look like https://host/path/, in ASCII, without user, query or fragment")
    return value


def one_line(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isprintable():
        raise ValueError("must be one line of printable characters")
    return value


def webhook_secrets(value: SecretStr) -> SecretStr:
    """Secrets between spaces; of 24 to 64 bytes each, as the Standard Webhooks specification asks."""
    for secret in one_line(value).get_secret_value().split():
        coded = secret.removeprefix("whsec_")
        try:
            size = len(base64.b64decode(coded, validate=True)) if coded != secret else len(secret.encode())
        except ValueError:
            raise ValueError("must be base64 after whsec_") from None
        if not SHORTEST_SECRET <= size <= LONGEST_SECRET:
            raise ValueError(f"must be {SHORTEST_SECRET} to {LONGEST_SECRET} bytes long")
    return value


def bearer_token(value: SecretStr) -> SecretStr:
    """A token as RFC 6750 (2.1) has it, too long to be guessed; or empty."""
    token = value.get_secret_value()
    if token and not re.fullmatch(rf"[A-Za-z0-9._~+/-]{{{SHORTEST_SECRET},512}}=*", token):
        raise ValueError(f"must be {SHORTEST_SECRET} or more letters, digits and -._~+/, as of `openssl rand -hex 32`")
    return value


def postgresql_url(value: SecretStr) -> SecretStr:
    """What libpq understands; its own complaint is not shown, because it quotes the password."""
    try:
        conninfo_to_dict(value.get_secret_value())
    except psycopg.ProgrammingError:
        raise ValueError("must look like postgresql://user:password@host:5432/atp") from None
    return value


def zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError):
        raise ValueError("must be a time zone such as Europe/Madrid") from None
    return value


Rate = Annotated[str, BeforeValidator(rate), WithJsonSchema({"type": "string", "pattern": f"^{RATE.pattern}$"})]
Names = Annotated[list[str], BeforeValidator(comma_separated)]
Url = Annotated[str, AfterValidator(web_address)]
Beginnings = Annotated[Names, AfterValidator(beginnings)]
OneLine = Annotated[SecretStr, AfterValidator(one_line)]
WebhookSecrets = Annotated[SecretStr, AfterValidator(webhook_secrets)]
BearerToken = Annotated[SecretStr, AfterValidator(bearer_token)]
PostgresqlUrl = Annotated[SecretStr, AfterValidator(postgresql_url)]
Zone = Annotated[str, AfterValidator(zone)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Months = Annotated[int, Field(ge=1, le=1200)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def read_secret(variable: str, path: Path) -> str:
    """A secret's file without its trailing newline; raises SettingsError."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}: cannot read {path}: {getattr(error, 'strerror', 'not text')}") from None


class ModelPrice(BaseModel):
    """What a model costs, in US dollars per million tokens; 0 when unknown or free."""

    model_config = ConfigDict(extra="forbid")
    input_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0


class ProviderSettings(BaseModel):
    """One OpenAI-compatible server and the models asked of it."""

    model_config = ConfigDict(extra="forbid")
    base_url: Annotated[Url, Field(min_length=1)]
    api_key: OneLine = SecretStr("")
    api_key_file: Path | None = None
    models: Annotated[dict[str, ModelPrice], Field(min_length=1)]
    # Fields such as {"repeat_penalty": 1.1}, sent with every request to this provider.
    extra_body: dict[str, Any] = {}

    def key(self) -> str:
        """The key, from its file if it has one; raises SettingsError when that cannot be read."""
        return read_secret("PROVIDERS", self.api_key_file) if self.api_key_file else self.api_key.get_secret_value()
