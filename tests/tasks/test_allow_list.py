"""Where tasks may call back: a URL is under an allowed beginning, in its plain form, or it is refused."""

import pytest

from service.tasks.allow_list import AllowList

HOOKS = "https://hooks.example/atp/"
LIST = AllowList([HOOKS, "http://10.0.0.7:8080", "https://one.example/exactly", "https://[2001:db8::1]/"])


@pytest.mark.parametrize(
    ("url", "beginning"),
    [
        ("https://hooks.example/atp/", HOOKS),
        ("https://hooks.example/atp/x/y?token=a%20b&c=/../", HOOKS),
        ("https://hooks.example:443/atp/x", HOOKS),
        ("https://hooks.example:0443/atp/x", HOOKS),
        ("HTTPS://Hooks.EXAMPLE/atp/x", HOOKS),
        ("https://hooks.example/atp/a..b/...", HOOKS),
        ("https://hooks.example/atp/100%25", HOOKS),
        ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
        ("http://10.0.0.7:8080?x=1", "http://10.0.0.7:8080"),
        ("http://10.0.0.7:8080/any/where", "http://10.0.0.7:8080"),
        ("https://one.example/exactly", "https://one.example/exactly"),
        ("https://one.example/exactly?id=7", "https://one.example/exactly"),
        ("https://one.example/exactly/below", "https://one.example/exactly"),
        ("https://[2001:DB8::1]/x", "https://[2001:db8::1]/"),
    ],
)
def test_what_is_under_a_beginning_may_be_called(url: str, beginning: str) -> None:
    assert LIST.beginning(url) == beginning


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://hooks.example",  # above the beginning
        "https://hooks.example/atp",
        "https://hooks.example/ATP/x",  # paths have capitals
        "https://one.example/exactly-not",
        "https://hooks.example.evil.example/atp/x",
        "https://hooks.example@evil.example/atp/x",
        "https://user:password@hooks.example/atp/x",
        "https://hooks.example:8443/atp/x",
        "https://hooks.example:/atp/x",
        "https://hooks.example:99999/atp/x",
        "https://hooks.example:+443/atp/x",
        "https://hooks.example./atp/x",
        "http://hooks.example/atp/x",
        "http://hooks.example:443/atp/x",
        "https://10.0.0.7:8080/x",
        "ftp://hooks.example/atp/x",
        "//hooks.example/atp/x",
        "https:/hooks.example/atp/x",
        "https:hooks.example/atp/x",
        "https://hooks.example/atp/x#fragment",
        "https://hooks.example/atp/../admin",
        "https://hooks.example/atp/..",
        "https://hooks.example/atp/./x",
        "https://hooks.example/atp/%2e%2E/admin",
        "https://hooks.example/atp/.%2e/admin",
        "https://hooks.example/atp/%252e%252e/admin",
        "https://hooks.example/atp/%25252e%25252e/admin",
        "https://hooks.example/atp/%2525252525",
        "https://hooks.example/atp/..%2fadmin",
        "https://hooks.example/atp/x%2f..%5cadmin",
        "https://hooks.example/atp/..;x/admin",
        "https://hooks.example/atp\\..\\admin",
        "https://hooks.example\\@evil.example/atp/x",
        "https://evil.example\\.hooks.example/atp/x",
        "https://hooks.example/atp/%zz",
        "https://hooks.example/atp/ x",
        "https://hooks.example/atp/x\n",
        "https://hooks.example/atp/x\r\nhost: evil.example",
        "\thttps://hooks.example/atp/x",
        "https://hooks.example/atp/\x00",
        "https://hooks.exa\u2024mple/atp/x",
        "https://hooks\u3002example/atp/x",
        "https://hooks.example/atp/\u00e9",
        "http://[2001:db8::1]/x",
        "https://[2001:db8::1%25eth0]/x",
        "http://167772167:8080/x",  # another way to write 10.0.0.7
    ],
)
def test_anything_else_may_not(url: str) -> None:
    assert LIST.beginning(url) is None


def test_a_beginning_that_is_not_plain_allows_nothing() -> None:
    crooked = AllowList(["hooks.example", "https://h.example/a/../", "https://h.example/?x=", "https://u@h.example/"])
    for url in ("https://hooks.example/x", "https://h.example/a/x", "https://h.example/", "https://h.example/?x=1"):
        assert crooked.beginning(url) is None


def test_without_beginnings_nothing_may_be_called() -> None:
    assert AllowList([]).beginning("https://hooks.example/") is None
