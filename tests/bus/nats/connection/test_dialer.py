"""Making links: with the certificate of the moment, never with one of somebody else or that has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection import dialer as dialing
from sealbus.bus.nats.connection.dialer import Dialer
from sealbus.bus.nats.connection.link import Link, fingerprint
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.ports import Clock, X509Material
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId

CA = ThrowawayCa("example.org")
ME = "spiffe://example.org/agent/a"
EXPECTED = frozenset({SpiffeId("spiffe://example.org/nats/server")})
SERVERS = ("tls://one:4222", "tls://two:4222")


class FakeLink:
    """A link that opens, or says why it does not."""

    made: list[FakeLink]
    away: frozenset[str]

    def __init__(
        self, *, url: str, material: X509Material, expected: frozenset[SpiffeId], options: ConnectionOptions, **_: Any
    ) -> None:
        self.url = url
        self.options = options
        self.material = material
        self.expected = expected
        self.not_after = material.not_after
        self.fingerprint = fingerprint(material, expected)
        self.known_servers: tuple[str, ...] = ()
        self.opened = False
        FakeLink.made.append(self)

    async def open(self) -> None:
        assert self.options == ConnectionOptions(name="a")
        if self.url in FakeLink.away:
            raise BusUnavailable(f"{self.url} is away")
        self.opened = True
        self.known_servers = ("tls://three:4222",)


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> type[FakeLink]:
    FakeLink.made, FakeLink.away = [], frozenset()
    monkeypatch.setattr(dialing, "Link", FakeLink)
    return FakeLink


@pytest.fixture
def identity() -> StaticIdentity:
    return StaticIdentity(CA, ME)


def dialer(
    identity: StaticIdentity,
    *,
    inbox: str = "_INBOX.a.",
    counters: Counters | None = None,
    clock: Clock = wall_clock,
) -> Dialer:
    return Dialer(
        SERVERS,
        identity=identity,
        server_ids=EXPECTED,
        inbox_prefix=inbox,
        options=ConnectionOptions(name="a"),
        counters=counters or Counters(),
        clock=clock,
        random=lambda: 0.0,
    )


async def dial(made: Dialer) -> Link:
    return await made.dial_any(lambda _: None, lambda _: None)


async def test_a_link_is_made_with_the_certificate_of_now_and_who_may_answer(
    identity: StaticIdentity, links: type[FakeLink]
) -> None:
    counters = Counters()
    made = dialer(identity, counters=counters)
    await dial(made)
    identity.renew(3600)
    await dial(made)
    assert [link.material.chain for link in links.made][1] == identity.x509().chain
    assert links.made[0].material.chain != links.made[1].material.chain
    assert all(link.expected == EXPECTED and link.opened for link in links.made)
    assert counters.value("sealbus_bus_connections_total") == 2


async def test_each_server_is_tried_and_every_reason_told(identity: StaticIdentity, links: type[FakeLink]) -> None:
    links.away = frozenset(SERVERS)
    made = dialer(identity)
    with pytest.raises(BusUnavailable, match="tls://one:4222 is away; tls://two:4222 is away"):
        await dial(made)
    links.away = frozenset(SERVERS[:1])
    await dial(made)
    assert links.made[-1].url == "tls://two:4222"


async def test_what_a_server_tells_of_its_cluster_is_tried_in_turn(
    identity: StaticIdentity, links: type[FakeLink]
) -> None:
    made = dialer(identity)
    for _ in range(3):
        await dial(made)
    assert [link.url for link in links.made] == [*SERVERS, "tls://three:4222"]


async def test_no_link_is_made_with_an_svid_of_somebody_else(
    identity: StaticIdentity, links: type[FakeLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(identity.x509(), spiffe_id=SpiffeId("spiffe://example.org/agent/b"))
    monkeypatch.setattr(identity, "x509", lambda: other)
    with pytest.raises(IdentityUnavailable, match=r"not spiffe://example\.org/agent/a"):
        await dial(dialer(identity))
    assert links.made == []


async def test_an_svid_that_ends_within_the_margin_opens_nothing(
    identity: StaticIdentity, links: type[FakeLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = wall_clock()
    ending = replace(identity.x509(), not_after=now + int(ConnectionOptions().margin * SECOND))
    monkeypatch.setattr(identity, "x509", lambda: ending)
    with pytest.raises(IdentityUnavailable, match="has expired"):
        await dial(dialer(identity, clock=lambda: now))
    assert not any(link.opened for link in links.made)
    ending = replace(ending, not_after=ending.not_after + 1)
    await dial(dialer(identity, clock=lambda: now))
    assert links.made[-1].opened


async def test_a_link_is_old_once_a_new_one_would_be_another(identity: StaticIdentity) -> None:
    made = dialer(identity)
    link = await dial(made)
    assert not made.newer_than(link)
    identity.renew(3600)
    assert made.newer_than(link)
    identity.material = None
    assert not made.newer_than(link)


@pytest.mark.parametrize("inbox", ["", "_INBOX.a", "INBOX.a.", "a."])
def test_an_inbox_is_under_its_prefix(identity: StaticIdentity, inbox: str) -> None:
    with pytest.raises(ConfigurationError, match="inbox prefix"):
        dialer(identity, inbox=inbox)
