"""TLS to central OPAs: a context for each X.509-SVID, and none for one that is about to end."""

from __future__ import annotations

import asyncio

import pytest
from support.central_opa import OPA_ID, WORKER
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.agents.runtime.policy.opa_tls import MARGIN, OpaTls
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId

CA = ThrowawayCa("example.org")
EXPECTED = frozenset({SpiffeId(OPA_ID)})


async def test_the_context_is_the_same_until_there_is_another_certificate() -> None:
    identity = StaticIdentity(CA, WORKER, life=60)
    tls = OpaTls(identity, expected=EXPECTED)
    first = tls.current()
    assert tls.current() is first
    left = first.ends - asyncio.get_running_loop().time()
    assert 55 < left <= 61 - MARGIN
    identity.rotate(120)
    second = tls.current()
    assert second is not first
    assert second.context is not first.context
    assert second.ends > first.ends + 30


async def test_a_certificate_that_is_about_to_end_is_not_used() -> None:
    identity = StaticIdentity(CA, WORKER, life=0)  # rounded up to a whole second, so that it lives for one at most
    tls = OpaTls(identity, expected=EXPECTED)
    with pytest.raises(IdentityUnavailable, match="about to expire"):
        tls.current()
    identity.rotate(60)
    tls.current()


async def test_without_a_certificate_or_the_servers_bundle_there_is_no_context() -> None:
    identity = StaticIdentity(CA, WORKER)
    with pytest.raises(ConfigurationError, match=r"other\.org"):
        OpaTls(identity, expected=frozenset({SpiffeId("spiffe://other.org/opa")})).current()
    identity.material = None
    with pytest.raises(IdentityUnavailable):
        OpaTls(identity, expected=EXPECTED).current()
