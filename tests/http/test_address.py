"""Whose address counts: the peer's, or what trusted proxies say; a client can make up nothing."""

import pytest
from starlette.types import Scope

from service.errors import SettingsError
from service.http.address import cap_group, client_address, networks

TRUSTED = networks(["10.0.0.0/8", "2001:db8:f::/48", "192.0.2.1"])


def scope(peer: str, *forwarded: str) -> Scope:
    return {"client": (peer, 4711), "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # no proxy of ours: its word is not asked
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # the client sent 1.2.3.4 itself
        ("10.0.0.1", ["nonsense, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.1.1.1,192.0.2.1"], "203.0.113.9"),  # through three proxies
        ("10.0.0.1", ["203.0.113.9", "10.1.1.1"], "203.0.113.9"),  # two headers are one list
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),  # all trusted: a client within
        ("10.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("2001:db8:f::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, nonsense, 10.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(peer: str, forwarded: list[str], client: str) -> None:
    assert client_address(scope(peer, *forwarded), TRUSTED) == client


def test_a_proxys_ipv4_written_as_ipv6_is_trusted_all_the_same() -> None:
    assert networks(["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"]) == networks(["10.0.0.0/8", "192.0.2.1"])


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    assert client_address(scope("10.0.0.1", "203.0.113.9"), []) == "10.0.0.1"


def test_a_unix_socket_has_no_address() -> None:
    assert client_address({"client": None, "headers": []}, TRUSTED) == ""


def test_of_a_very_long_chain_only_the_nearest_links_are_read() -> None:
    chain = ", ".join(["203.0.113.9", *["10.1.1.1"] * 31])
    assert client_address(scope("10.0.0.1", chain), TRUSTED) == "203.0.113.9"
    assert client_address(scope("10.0.0.1", chain + ", 10.1.1.1"), TRUSTED) == "10.1.1.1"


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", ""),
    ],
)
def test_one_client_is_an_ipv4_address_or_an_ipv6_subscribers_network(address: str, group: str) -> None:
    assert cap_group(address) == group


def test_every_fault_of_the_setting_is_named() -> None:
    with pytest.raises(SettingsError) as error:
        networks(["10.0.0.0/8", "proxy.example", "10.0.0.1/8"])
    assert error.value.detail.splitlines() == [
        "TRUSTED_PROXIES: 'proxy.example' does not appear to be an IPv4 or IPv6 network",
        "TRUSTED_PROXIES: 10.0.0.1/8 has host bits set",
    ]
