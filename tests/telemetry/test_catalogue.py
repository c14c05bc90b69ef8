"""The catalogue: what it shows of itself, and how many series a process may have."""

from pathlib import Path

from prometheus_client import generate_latest

from service.metric_page import as_markdown
from service.telemetry.catalogue import all_series, entries
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]


def overflow(metrics: Metrics, metric: str) -> float | None:
    return metrics.registry.get_sample_value("atp_label_overflow_total", {"metric": metric})


def test_the_page_is_of_this_catalogue() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == as_markdown()


def test_every_metric_says_what_it_counts_in_units_of_its_name() -> None:
    names = [entry.name for entry in entries()]
    assert len(names) == len(set(names))
    assert all(entry.text for entry in entries())
    assert all(name.startswith(("atp_", "http_server_", "db_client_", "gen_ai_client_")) for name in names)


def test_a_query_may_use_every_series_that_a_process_exports() -> None:
    lines = generate_latest(Metrics().registry).decode().splitlines()
    exported = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert exported - set(all_series()) == set()


def test_requests_beyond_so_many_routes_are_other_and_keep_their_status() -> None:
    metrics = Metrics()
    for number in range(80):
        metrics.http_durations("GET", f"/{number}", "200").observe(0.1)
    metrics.http_durations("GET", "/new", "500").observe(0.1)
    read = metrics.registry.get_sample_value
    labels = {"http_request_method": "_OTHER", "http_route": "other"}
    count = "http_server_request_duration_seconds_count"
    counted = {status: read(count, labels | {"http_response_status_code": status}) for status in ("200", "500")}
    assert counted == {"200": 16, "500": 1}
    assert overflow(metrics, "http_server_request_duration_seconds") == 17
    metrics.http_durations("GET", "/0", "200").observe(0.1)  # a known one is still itself
    assert overflow(metrics, "http_server_request_duration_seconds") == 17


def test_models_beyond_so_many_are_other() -> None:
    metrics = Metrics()
    for number in range(30):
        metrics.model_durations("chat", "openai", f"model-{number}", "").observe(0.1)
        metrics.model_token_counts("chat", "openai", f"model-{number}", "input").observe(9)
        metrics.model_first_chunks("openai", f"model-{number}").observe(0.1)
    assert overflow(metrics, "gen_ai_client_operation_duration_seconds") == 6
    assert overflow(metrics, "gen_ai_client_token_usage") == 6
    assert overflow(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds") == 18
