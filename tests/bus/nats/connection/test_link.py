"""A link without a server: what is held back, what is refused, and what its end does."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.client import SafeClient
from sealbus.bus.nats.connection.link import LEAST_VERSION, WRITE_LIMIT, Link, fingerprint, too_old
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

CA = ThrowawayCa("example.org")
EXPECTED = frozenset({SpiffeId("spiffe://example.org/nats/server")})


class FakeClient:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def buffered(self) -> int:
        return self.waiting

    def cut(self) -> None:
        self.written.append(b"cut")

    async def close(self) -> None:
        self.written.append(b"close")


class Old:
    """The link before: `flush` notes what had been written to the new one by then."""

    def __init__(self, client: FakeClient, error: BusUnavailable | None = None) -> None:
        self.client = client
        self.error = error
        self.seen: list[bytes] = []

    async def flush(self, seconds: float) -> None:
        del seconds
        self.seen = list(self.client.written)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
async def lost() -> list[Link]:
    return []


@pytest.fixture
async def link(client: FakeClient, lost: list[Link]) -> Link:
    made = Link(
        url="tls://x:1",
        material=StaticIdentity(CA, "spiffe://example.org/agent/a").x509(),
        expected=EXPECTED,
        inbox_prefix="_INBOX.a.",
        options=ConnectionOptions(),
        on_lost=lost.append,
        on_dropped=lambda _: None,
        on_lame_duck=lambda _: None,
    )
    made._client = cast("SafeClient", client)
    made.alive = True
    return made


async def test_what_is_held_follows_the_old_link(link: Link, client: FakeClient) -> None:
    old = Old(client)
    link.hold()
    link.write(b"1")
    link.write(b"2")
    await link.follow(cast("Link", old), 1.0)
    link.write(b"3")
    assert old.seen == []
    assert client.written == [b"12", b"3"]


async def test_an_old_link_that_does_not_answer_holds_nothing_for_ever(link: Link, client: FakeClient) -> None:
    link.hold()
    link.write(b"1")
    await link.follow(cast("Link", Old(client, BusUnavailable("silent"))), 1.0)
    assert client.written == [b"1"]


async def test_a_server_that_takes_nothing(link: Link, client: FakeClient) -> None:
    client.waiting = WRITE_LIMIT - 1
    link.hold()
    link.write(b"12")
    with pytest.raises(BusUnavailable, match="takes no more"):
        link.write(b"1")


async def test_its_end_is_told_once(link: Link, client: FakeClient, lost: list[Link]) -> None:
    ended: list[int] = []
    link.watchers.append(lambda: ended.append(1))
    link.cut("its certificate expires")
    link.cut("again")
    assert lost == [link]
    assert ended == [1]
    assert "its certificate expires" in link.reason
    for use in (lambda: link.write(b"1"), lambda: link.subscribe("a", lambda *_: None)):
        with pytest.raises(BusUnavailable):
            use()
    with pytest.raises(BusUnavailable):
        await link.flush(1.0)
    link.unsubscribe(1)
    assert client.written == [b"cut", b"cut"]


async def test_closing_is_no_loss(link: Link, lost: list[Link]) -> None:
    await link.close()
    assert lost == []
    assert link.ended.is_set()


def test_what_a_new_link_is_made_for() -> None:
    identity = StaticIdentity(CA, "spiffe://example.org/agent/a")
    material = identity.x509()
    base = fingerprint(material, EXPECTED)
    assert fingerprint(replace(material), EXPECTED) == base
    other = {TrustDomain("other.org"): (b"x",)}
    assert fingerprint(replace(material, bundles={**material.bundles, **other}), EXPECTED) == base
    both = {TrustDomain("example.org"): (CA.cert_der, b"x")}
    assert fingerprint(replace(material, bundles=both), EXPECTED) != base
    identity.renew(3600.0)
    assert fingerprint(identity.x509(), EXPECTED) != base


@pytest.mark.parametrize("version", ["2.12.7", "v2.12.7", "2.12.10", "2.14.0", "2.15.0-dev", "2.15.1", "3.0.0+build"])
def test_a_new_server_is_used(version: str) -> None:
    assert too_old(version) == ""


@pytest.mark.parametrize("version", ["2.12.6", "2.11.16", "2.9.25", "1.99.99", "0.0.0"])
def test_an_old_server_is_named_with_the_version_that_is_needed(version: str) -> None:
    assert too_old(version) == (f"the server is nats-server {version}; nats-server 2.12.7 or newer is needed")


@pytest.mark.parametrize("version", [None, 2, "", "2.15", "2.15.1.1", "two", "2.15.1\n", "٢.15.1", ["2.15.1"]])
def test_a_server_without_a_version_is_not_used(version: object) -> None:
    assert "does not state its version" in too_old(version)


def test_the_oldest_version_is_that_of_the_documents() -> None:
    assert LEAST_VERSION == (2, 12, 7)
