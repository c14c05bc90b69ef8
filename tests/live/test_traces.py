"""What a socket leaves in traces, Sentry and logs: enough to find it, and no secret."""

from typing import Any

import pytest

from service.routes.conversation import Conversation
from tests.live.clients import refusal, socket
from tests.nodes import RunningNode
from tests.telemetry.sinks import Sink
from tests.waiting import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MARK = "-".join(["canary", "id"])  # joined, because source text around a frame is sent, and may be
CALLER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def names(collector: Sink) -> list[str]:
    return [span.name for span in collector.spans()]


async def test_the_handshake_is_a_span_and_each_chat_a_trace_that_links_to_it(
    told: RunningNode, collector: Sink
) -> None:
    async with socket(told, headers=CALLER) as client:
        await eventually(lambda: "GET /ws/session" in names(collector), within_s=10)  # also while it is open
        await client.say("chat", id="c1", agent="reasoning", task="canary-task-word", model="good")
        await client.hear("done")
    await eventually(lambda: "ws chat" in names(collector), within_s=10)
    by_name: dict[str, Any] = {span.name: span for span in collector.spans()}
    handshake, chat, model = by_name["GET /ws/session"], by_name["ws chat"], by_name["chat good"]
    assert handshake.trace_id.hex() == TRACE
    assert chat.trace_id != handshake.trace_id
    assert chat.parent_span_id == b""
    assert [link.span_id for link in chat.links] == [handshake.span_id]
    assert (model.trace_id, model.parent_span_id) == (chat.trace_id, chat.span_id)
    attributes = {a.key: a.value.string_value or a.value.int_value for a in handshake.attributes}
    assert attributes == {
        "atp.key_prefix": told.key[9:17],
        "http.route": "/ws/session",
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.response.status_code": 101,
    }


async def test_a_refused_handshake_is_a_span_with_its_status_and_without_its_ticket(
    told: RunningNode, collector: Sink
) -> None:
    assert (await refusal(told, key="", ticket="wst_canary-ticket"))[0] == 401
    await eventually(lambda: "GET /ws/session" in names(collector), within_s=10)
    span = next(span for span in collector.spans() if span.name == "GET /ws/session")
    assert {a.key: a.value.int_value for a in span.attributes}["http.response.status_code"] == 401
    assert b"canary" not in span.SerializeToString()


async def test_a_fault_of_ours_is_1011_and_reaches_sentry_without_the_message(
    told: RunningNode, collector: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Conversation, "take", explode)
    async with socket(told) as client:
        await client.say("ping", id=MARK)
        assert (await client.closed())[0] == 1011
    await eventually(lambda: len(collector.events()) == 1, within_s=10)
    event = collector.events()[0]
    assert event["exception"]["values"][0]["value"] == "boom"
    assert MARK not in str(event)
    assert await told.metric('atp_unhandled_exceptions_total{component="websocket"}') == 1
    stats = (await told.http.get("/api/admin/stats/online-users")).json()
    assert stats["sockets"] == 0
