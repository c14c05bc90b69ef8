"""Events on the wire."""

from service.http.sse import event


def test_an_event_is_its_name_and_one_line_of_json() -> None:
    assert event("delta", {"text": "two\nlines"}) == b'event: delta\ndata: {"text":"two\\nlines"}\n\n'
