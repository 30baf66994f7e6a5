"""Where an API may be: at public addresses, or in the networks of its settings, whatever its name says later."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from sealbus.agents.edge.http.reachable import AddressRefused, address_of, is_loopback, is_public, resolve

INSIDE = [
    "0.0.0.0",  # noqa: S104  nothing is bound
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2001::1",
    "2002:a00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "::ffff:0:10.0.0.1",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111"]


class Names:
    """Answers with each list in turn, the last one again and again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_points_inside_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="api"):
        await address_of("api.example", 443, (), resolving=Names([address]))


@pytest.mark.parametrize("found", [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"]])
async def test_one_address_inside_is_enough_to_refuse(found: list[str]) -> None:
    with pytest.raises(AddressRefused):
        await address_of("api.example", 443, (), resolving=Names(found))


async def test_the_first_public_address_is_taken() -> None:
    assert await address_of("api.example", 443, (), resolving=Names(["8.8.8.8", "8.8.4.4"])) == "8.8.8.8"


async def test_networks_take_the_place_of_the_internet() -> None:
    networks = (ip_network("10.20.0.0/16"), ip_network("fd00::/8"))
    assert await address_of("crm.corp", 443, networks, resolving=Names(["10.20.1.1"])) == "10.20.1.1"
    assert await address_of("crm.corp", 443, networks, resolving=Names(["fd00::1%eth0"])) == "fd00::1"
    for address in ("10.21.0.1", "8.8.8.8", "127.0.0.1"):
        with pytest.raises(AddressRefused):
            await address_of("crm.corp", 443, networks, resolving=Names([address]))


@pytest.mark.parametrize("answer", [[], ["no address"]])
async def test_a_name_without_an_address(answer: list[str]) -> None:
    with pytest.raises(AddressRefused, match="no address"):
        await address_of("api.example", 443, (), resolving=Names(answer))


async def test_a_name_that_is_not_found() -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise OSError

    with pytest.raises(AddressRefused, match="no address"):
        await address_of("api.example", 443, (), resolving=fails)


async def test_names_are_resolved_by_the_system() -> None:
    assert "127.0.0.1" in await resolve("localhost", 80)
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.a.example", False),
        ("LOCALHOST", False),
        ("local", False),
        ("192.0.2.1", False),
        ("::", False),
        ("a.example", False),
    ],
)
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
