import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from service.embedded.llm import Llm

SYSTEM = {"role": "system", "content": "You are a helpful assistant. Answer briefly and factually."}
CAPITAL = {"messages": [SYSTEM, {"role": "user", "content": "What is the capital of France?"}]}
PARIS = "The capital of France is Paris."
# Long enough that it would still be running when the test looks.
ENDLESS = {"messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": 2000, "ignore_eos": True}


@pytest.fixture
def client(llm_server: Llm) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {llm_server.api_key}"}
    with httpx2.Client(base_url=llm_server.base_url, headers=headers, timeout=30) as client:
        yield client


def chat(client: httpx2.Client, **fields: object) -> dict[str, object]:
    response = client.post("/chat/completions", json={**CAPITAL, "model": "smollm2-135m", **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def text(answer: dict[str, object]) -> str:
    return str(answer["choices"][0]["message"]["content"])  # type: ignore[index]


def test_it_offers_one_model_by_its_name(client: httpx2.Client) -> None:
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["smollm2-135m"]


def test_a_wrong_key_is_refused(client: httpx2.Client) -> None:
    response = client.post("/chat/completions", json=CAPITAL, headers={"Authorization": "Bearer guess"})
    assert response.status_code == 401


def test_it_knows_the_capital_of_france_and_counts_tokens(client: httpx2.Client) -> None:
    answer = chat(client)
    assert text(answer) == PARIS
    assert answer["usage"]["prompt_tokens"] == 33  # type: ignore[index]
    assert answer["usage"]["completion_tokens"] == 8  # type: ignore[index]


def test_it_knows_it_with_a_repeat_penalty_too(client: httpx2.Client) -> None:
    assert "Paris" in text(chat(client, temperature=0, repeat_penalty=1.1))


def test_an_answer_is_no_longer_than_asked_for(client: httpx2.Client) -> None:
    answer = chat(client, max_tokens=3)
    assert text(answer) == "The capital of"
    assert answer["choices"][0]["finish_reason"] == "length"  # type: ignore[index]


def test_a_stream_gives_the_same_text_and_then_the_usage(client: httpx2.Client) -> None:
    body = {**CAPITAL, "stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/chat/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]) == PARIS
    assert events[-1]["usage"]["completion_tokens"] == 8


def test_a_client_that_leaves_mid_stream_frees_its_slot(client: httpx2.Client) -> None:
    with client.stream("POST", "/chat/completions", json={**ENDLESS, "stream": True}) as response:
        next(response.iter_lines())
        assert busy(client) == 1
    deadline = time.monotonic() + 2
    while busy(client):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def busy(client: httpx2.Client) -> int:
    slots = client.get(client.base_url.join("/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


def test_kept_alive_connections_do_not_shut_others_out(llm_server: Llm) -> None:
    clients = [httpx2.Client(base_url=llm_server.base_url, timeout=2) for _ in range(20)]
    health = llm_server.base_url.replace("/v1", "/health")
    assert [client.get(health).status_code for client in clients] == [200] * 20
    for client in clients:
        client.close()
