"""Which device a client is."""

import time

import pytest

from service.devices import device_of

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148"
IPAD = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile"
PIXEL = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile Safari/537.36"
GALAXY_TAB = "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.5 Safari/605.1.15"
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (IPHONE, "mobile"),
        (IPAD, "tablet"),
        (PIXEL, "mobile"),
        (GALAXY_TAB, "tablet"),
        (WINDOWS, "desktop"),
        (MAC, "desktop"),
        (LINUX, "desktop"),
        (GOOGLEBOT, "unknown"),
        ("curl/8.1.2", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_user_agent_tells(user_agent: str, device: str) -> None:
    assert device_of("", user_agent) == device


def test_the_clients_own_word_comes_first_and_a_word_we_do_not_know_does_not() -> None:
    assert device_of("tablet", IPHONE) == "tablet"
    assert device_of("fridge", IPHONE) == "mobile"


def test_a_hostile_user_agent_takes_no_time() -> None:
    device_of("", "warm up")
    started = time.perf_counter()
    assert device_of("", "Mozilla/5.0 (" + "Linux; " * 2000 + ")") == "desktop"
    assert time.perf_counter() - started < 0.5  # a backtracking engine takes longer for a quarter of it
