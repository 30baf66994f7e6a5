"""Certificates that would be somebody else on a real server: each is refused, with its own code where we are asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.callout import NAMES, callout_site, let_in, policy_folder
from support.raw_nats import RawNats
from support.x509 import ThrowawayCa

from sealbus.envelopes.errors import Code

pytestmark = [pytest.mark.nats]

INVENTORY = str(NAMES.id_of("inventory"))


async def test_an_authority_that_the_server_trusts_cannot_name_our_agents(tmp_path: Path) -> None:
    """The server trusts both authorities, and asks nobody which of them may vouch for which trust domain."""
    partner = ThrowawayCa("partner.org")
    buyer = "spiffe://partner.org/agent/buyer"
    policy = policy_folder(tmp_path / "policy", agents={buyer: {"actions": {"pricing.quote": True}}})
    async with callout_site(tmp_path / "site", federated=[partner], policy=policy) as site:
        assert not await let_in(site, partner.issue(INVENTORY))
        assert site.responders[0].codes == [Code.WRONG_AUTHORITY]
        assert not await let_in(site, partner.issue("spiffe://partner.org/agent/stranger"))
        assert site.responders[0].codes == [Code.WRONG_AUTHORITY, Code.DENIED]
        # Its own agent, whom our policy knows, may do the one thing that it is granted.
        async with RawNats(site.port, site.ca, partner.issue(buyer), site.folder) as client:
            assert await client.may_publish("call.pricing.quote")
            assert not await client.may_publish("call.inventory.read")
            assert not await client.may_publish("audit.inventory")
        assert await let_in(site, site.ca.issue(INVENTORY))


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (INVENTORY, "spiffe://example.org/agent/pricing"),
        (INVENTORY, INVENTORY),
        ("spiffe://example.org/agent/operator", INVENTORY),
        (INVENTORY, "https://example.org"),
    ],
)
async def test_a_certificate_has_exactly_one_uri(tmp_path: Path, uris: tuple[str, ...]) -> None:
    async with callout_site(tmp_path) as site:
        assert not await let_in(site, site.ca.issue(INVENTORY, uris=uris))
        assert site.responders[0].codes == [Code.NOT_ONE_URI]


async def test_an_authority_is_no_client_and_neither_is_who_nobody_vouches_for(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        assert not await let_in(site, site.ca.issue(INVENTORY, authority=True))
        assert not await let_in(site, ThrowawayCa("example.org").issue(INVENTORY))
        # The second never came so far as to be asked about.
        assert site.responders[0].codes == [Code.BAD_SVID]


async def test_a_trust_domain_whose_bundle_we_no_longer_have(tmp_path: Path) -> None:
    partner = ThrowawayCa("partner.org")
    async with callout_site(tmp_path, federated=[partner]) as site:
        identity = site.responders[0].identity
        identity.anchors.pop(next(one for one in identity.anchors if one.name == "partner.org"))
        identity.rotate()
        assert not await let_in(site, partner.issue("spiffe://partner.org/agent/buyer"))
        assert site.responders[0].codes == [Code.UNKNOWN_TRUST_DOMAIN]
