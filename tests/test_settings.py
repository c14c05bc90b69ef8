"""Settings: the guide's names and defaults, one line per fault, secrets from files, and a page that tells the truth."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import SECRETS, Settings, load

GUIDE = {
    "rate_limit_chat": "30/minute",
    "rate_limit_api": "60/minute",
    "rate_limit_admin": "100/minute",
    "max_websocket_connections": 10000,
    "websocket_timeout": 300,
    "db_pool_size": 20,
    "db_max_overflow": 40,
    "redis_max_connections": 50,
    "redis_socket_timeout": 5,
    "agent_response_ttl": 7200,
    "query_cache_ttl": 1800,
    "user_session_ttl": 86400,
}
PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.mark.parametrize(("name", "default"), GUIDE.items())
def test_the_guides_settings_have_the_guides_defaults(name: str, default: object) -> None:
    assert Settings.model_fields[name].default == default


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.setenv("OPENAI_MODELS", "a, b")
    settings = load()
    assert settings.port == 8123
    assert settings.openai_models == ["a", "b"]


def test_every_fault_is_one_line_that_names_its_variable_and_never_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("RATE_LIMIT_CHAT", "hunter2")
    monkeypatch.setenv("PROVIDERS", '{"a": {"base_url": "ftp://x", "models": {}}}')
    with pytest.raises(SettingsError) as raised:
        load()
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "PORT",
        "RATE_LIMIT_CHAT",
        "PROVIDERS.a.base_url",
        "PROVIDERS.a.models",
    ]
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OPENAI_BASE_URL", "foo", "must begin with http"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "foo", "must begin with http"),
        ("OPENAI_API_KEY", "two\nlines", "must be one line"),
        ("DATABASE_URL", "postgres:/u:S3CRET@h/db", "must look like postgresql://"),
        ("TASK_CALLBACK_URLS", "hooks.example", "each must look like https://host/path/"),
        ("TASK_CALLBACK_URLS", "https://hooks.example/,https://u:S3CRET@hooks.example/", "each must look like"),
        ("TASK_CALLBACK_URLS", "https://hooks.example/?token=S3CRET", "each must look like"),
        ("TASK_CALLBACK_URLS", "https://hooks.example/../", "each must look like"),
        ("BRIDGE_TOKEN", "S3CRET", "must be 24 or more letters"),
        ("BRIDGE_TOKEN", "S3CRET with spaces in between", "must be 24 or more letters"),
        ("PRIVATE_PORT", "8000", "PORT and PRIVATE_PORT are both 8000"),
    ],
)
def test_a_value_that_could_not_work_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load()
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert "S3CRET" not in str(raised.value)


@pytest.mark.parametrize("url", ["redis://h:abc/0", "redis+sentinel://h:1/svc/xx", "redis://:S3CRET@h:port/0"])
def test_a_redis_url_that_could_not_work_is_refused(url: str) -> None:
    from service.state.redis import connect

    with pytest.raises(SettingsError) as raised:
        connect(load(redis_url=url), 0.3)
    assert "S3CRET" not in str(raised.value)


def test_an_empty_agents_file_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_FILE", "")
    assert load().agents_file is None


def test_a_secret_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://from/file\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "dsn"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert load().database_url.get_secret_value() == "postgresql://from/file"
    monkeypatch.setenv("DATABASE_URL", "postgresql://from/environment")
    assert load().database_url.get_secret_value() == "postgresql://from/environment"


def test_a_missing_secret_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="REDIS_URL_FILE: cannot read /nowhere: No such file"):
        load()


def test_a_secret_does_not_show_in_the_settings_text() -> None:
    assert "pw" not in repr(load(database_url="postgresql://u:pw@h/d", openai_api_key="pw"))


def test_the_page_of_settings_is_the_code() -> None:
    from service.setting_page import as_markdown

    assert PAGE.read_text() == as_markdown(), "run `make docs`"


def test_every_secret_is_a_setting() -> None:
    assert set(Settings.model_fields) >= SECRETS
