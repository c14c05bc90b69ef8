"""The catalogue: what it shows of itself, and how many series a process may have."""

from pathlib import Path

from prometheus_client import generate_latest

from service.metric_page import as_markdown
from service.telemetry.catalogue import all_series, entries
from service.telemetry.fleet_metrics import FLEET
from service.telemetry.labels import PERIODIC, WS_CLOSE_CODES, WS_IN
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
STATUSES = (101, 200, 201, 204, 304, 400, 401, 403, 404, 405, 409, 413, 422, 429, 499, 500, 502, 503, 504)


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


def test_requests_beyond_so_many_routes_are_other_and_keep_the_class_of_their_status() -> None:
    metrics = Metrics()
    for number in range(60):
        metrics.http_durations("GET", f"/{number}", 200).observe(0.1)
    for number in range(13):
        metrics.http_durations("GET", f"/{number}", 500).observe(0.1)
    read = metrics.registry.get_sample_value
    labels = {"http_request_method": "_OTHER", "http_route": "other"}
    count = "http_server_request_duration_seconds_count"
    counted = {status: read(count, labels | {"http_response_status_code": status}) for status in ("2xx", "5xx")}
    assert counted == {"2xx": 12, "5xx": 1}
    assert overflow(metrics, "http_server_request_duration_seconds") == 13
    metrics.http_durations("GET", "/0", 200).observe(0.1)  # a known one is still itself
    assert overflow(metrics, "http_server_request_duration_seconds") == 13


def test_who_scans_every_route_without_a_key_takes_no_place_of_a_chat_that_is_answered() -> None:
    metrics = Metrics()
    for number in range(500):
        for status in (401, 404, 405, 503):
            metrics.http_durations("GET", f"/{number}", status).observe(0.1)
    metrics.http_durations("POST", "/api/v1/chat", 200).observe(0.1)
    labels = {"http_request_method": "POST", "http_route": "/api/v1/chat", "http_response_status_code": "200"}
    assert metrics.registry.get_sample_value("http_server_request_duration_seconds_count", labels) == 1


def test_models_beyond_so_many_are_other_and_a_cancelled_call_is_still_no_failed_one() -> None:
    metrics = Metrics()
    for number in range(20):
        metrics.model_durations("chat", "openai", f"model-{number}", "").observe(0.1)
        metrics.model_token_counts("chat", "openai", f"model-{number}", "input").observe(9)
        metrics.model_first_chunks("openai", f"model-{number}").observe(0.1)
    for error in ("cancelled", "upstream", "timeout"):
        metrics.model_durations("chat", "openai", "new", error).observe(0.1)
    assert overflow(metrics, "gen_ai_client_operation_duration_seconds") == 4 + 3
    assert overflow(metrics, "gen_ai_client_token_usage") == 4
    assert overflow(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds") == 12
    labels = {"operation": "chat", "provider": "other", "model": "other"}
    count = "gen_ai_client_operation_duration_seconds_count"
    read = metrics.registry.get_sample_value
    assert [read(count, labels | {"error_type": error}) for error in ("", "cancelled", "other")] == [4, 1, 2]


def test_a_process_that_has_met_everything_has_under_1500_series() -> None:
    metrics = Metrics()
    for number in range(200):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER"):
            for status in STATUSES:
                metrics.http_durations(method, f"/{number}", status)
        for system in ("redis", "postgresql"):
            metrics.db_durations(system, f"operation-{number}")
        for error in ("", "cancelled", "upstream", "timeout", "internal"):
            metrics.model_durations("chat", "openai", f"model-{number}", error)
        for token_type in ("input", "output"):
            metrics.model_token_counts("chat", "openai", f"model-{number}", token_type)
        metrics.model_first_chunks("openai", f"model-{number}")
    for code in (*WS_CLOSE_CODES, "other"):
        for initiator in ("client", "server"):
            metrics.ws_disconnects.labels(initiator, code)
    for type_ in WS_IN:
        metrics.ws_handle.labels(type_)
    for task in PERIODIC:
        metrics.periodic_success.labels(task)
    metrics.ws_handshakes.labels("other")
    metrics.pool_wait.labels("postgresql")
    metrics.observe_pool("postgresql", lambda: {"idle": 1, "used": 1, "max": 2, "pending": 0})
    # 20 keys and all others; of the rest none has more than twelve.
    of_label = {"key_id": 21}
    metrics.observe_fleet(
        lambda: {
            metric.name: [
                ([f"value-{number}"] * len(metric.labels), 1.0)
                for number in range(max((of_label.get(label, 12) for label in metric.labels), default=1))
            ]
            for metric in FLEET
        }
    )
    lines = generate_latest(metrics.registry).decode().splitlines()
    assert 1_300 < sum(not line.startswith("#") for line in lines) < 1_500
