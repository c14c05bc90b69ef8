"""The addresses that `atp dev` prints."""

import pytest

from service.embedded.dev import address


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104 - a setting's value, not bound
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_an_address_can_be_opened_as_printed(host: str, url: str) -> None:
    assert address(host, 8000) == url
