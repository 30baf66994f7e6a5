"""Addresses of servers, and whose turn it is."""

from __future__ import annotations

import pytest

from sealbus.bus.nats.connection.dialer import Servers
from sealbus.envelopes.errors import ConfigurationError


def test_in_turn_from_a_random_one_on() -> None:
    servers = Servers(["tls://a:1", "tls://b", "tls://[::1]:3"], lambda: 0.4)
    assert servers.configured == ("tls://a:1", "tls://b:4222", "tls://[::1]:3")
    assert [servers.next() for _ in range(4)] == ["tls://b:4222", "tls://[::1]:3", "tls://a:1", "tls://b:4222"]


def test_what_the_cluster_tells_comes_after_what_is_configured() -> None:
    servers = Servers(["tls://a:1"], lambda: 0.0)
    servers.announce(["tls://a:1", "tls://c:1"])
    assert [servers.next() for _ in range(3)] == ["tls://a:1", "tls://c:1", "tls://a:1"]
    servers.announce([f"tls://n{number}:1" for number in range(1_000)])
    assert len({servers.next() for _ in range(2_000)}) == 65


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:1",
        "nats://a:1",
        "ws://a:1",
        "tls://",
        "tls://:1",
        "tls://a:x",
        "tls://u@a:1",
        "tls://a:1/x",
        "tls://a:1?x=1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="tls://host:port"):
        Servers([url], lambda: 0.0)


def test_at_least_one() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Servers([], lambda: 0.0)
