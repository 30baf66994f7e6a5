from __future__ import annotations

from collections.abc import Callable

import pytest
from support.workload_api import MovedClock

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.identity.jwt_svid import ASK_AGAIN, LEAST_LIFE, KeyCredential, read_jwt_bundles
from sealbus.envelopes.errors import Code, EnvelopeError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ME = SpiffeId("spiffe://example.org/agent/planner")
OTHER = SpiffeId("spiffe://example.org/agent/other")


def bundles_of(authority: DevelopmentAuthority) -> TrustBundles:
    return read_jwt_bundles({"spiffe://example.org": authority.jwt_bundle()}, TrustBundles()).bundles


def token_for(authority: DevelopmentAuthority, credential: KeyCredential, ttl: int = 60) -> str:
    return authority.issue_jwt(ME, [credential.key.thumbprint], ttl=ttl).token


def test_nothing_is_sealed_without_a_credential(clock: MovedClock) -> None:
    """And one is due at once."""
    credential = KeyCredential()
    assert credential.due() == 0
    assert not credential.holds(TrustBundles(), clock())
    with pytest.raises(IdentityUnavailable):
        credential.sealer(clock())


def test_sealer_holds_the_key_that_the_token_vouches_for(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """Own ID, own key, the token, and when it ends."""
    credential = KeyCredential()
    token = token_for(authority, credential)
    credential.accept(token, ME, bundles_of(authority), clock())
    sealer = credential.sealer(clock())
    assert (sealer.iss, sealer.key.public) == (ME, credential.key)
    assert sealer.credential.token == token.encode()
    assert credential.verified is not None
    assert sealer.expires == credential.verified.exp


def test_each_process_has_its_own_key() -> None:
    """Made in memory, never shared."""
    assert KeyCredential().key != KeyCredential().key


def test_under_twenty_seconds_nothing_is_sealed(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """SPEC.md section 5: 20 s left are enough, a microsecond less is not."""
    credential = KeyCredential()
    credential.accept(token_for(authority, credential), ME, bundles_of(authority), clock())
    assert credential.verified is not None
    last = credential.verified.exp - LEAST_LIFE
    assert credential.sealer(last).expires == credential.verified.exp
    with pytest.raises(IdentityUnavailable, match="needs 20"):
        credential.sealer(last + 1)


def test_refresh_is_due_at_half_life(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """SPEC.md section 5."""
    credential = KeyCredential()
    credential.accept(token_for(authority, credential, ttl=60), ME, bundles_of(authority), clock())
    assert credential.verified is not None
    assert credential.due() == credential.verified.iat + 30 * SECOND


def test_the_same_token_is_asked_for_again_after_five_seconds(
    authority: DevelopmentAuthority, clock: MovedClock
) -> None:
    """SPIRE's agent hands one out until its own idea of half life."""
    credential = KeyCredential()
    token, bundles = token_for(authority, credential, ttl=60), bundles_of(authority)
    credential.accept(token, ME, bundles, clock())
    clock.advance(31)
    now = clock()
    credential.accept(token, ME, bundles, now)
    assert credential.due() == now + ASK_AGAIN == now + 5 * SECOND
    clock.advance(5)
    now = clock()
    newer = token_for(authority, credential, ttl=60)
    credential.accept(newer, ME, bundles, now)
    assert credential.sealer(now).credential.token == newer.encode()
    assert credential.due() > now + 25 * SECOND


def test_a_token_that_ends_sooner_changes_nothing(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """Unless the one in use would be accepted no longer."""
    credential = KeyCredential()
    longer, shorter = token_for(authority, credential, ttl=120), token_for(authority, credential, ttl=60)
    credential.accept(longer, ME, bundles_of(authority), clock())
    credential.accept(shorter, ME, bundles_of(authority), clock())
    assert credential.sealer(clock()).credential.token == longer.encode()
    authority.prepare_jwt()
    authority.activate_jwt()
    authority.prune_jwt()
    assert not credential.holds(bundles_of(authority), clock())
    shorter = token_for(authority, credential, ttl=60)
    credential.accept(shorter, ME, bundles_of(authority), clock())
    assert credential.sealer(clock()).credential.token == shorter.encode()


Forge = Callable[[DevelopmentAuthority, KeyCredential], str]

FORGED: dict[str, tuple[Code, Forge]] = {
    "for another key": (Code.BAD_CREDENTIAL, lambda a, c: token_for(a, KeyCredential())),
    "for two audiences": (
        Code.BAD_CREDENTIAL,
        lambda a, c: a.issue_jwt(ME, [c.key.thumbprint, "orders"], ttl=60).token,
    ),
    "of another workload": (Code.BAD_CREDENTIAL, lambda a, c: a.issue_jwt(OTHER, [c.key.thumbprint], ttl=60).token),
    "of an unknown key": (
        Code.UNKNOWN_KEY,
        lambda a, c: token_for(DevelopmentAuthority(TrustDomain("example.org"), clock=a.clock), c),
    ),
    "longer than a day": (Code.BAD_CREDENTIAL, lambda a, c: token_for(a, c, ttl=86_401)),
    "expired": (Code.CREDENTIAL_EXPIRED, lambda a, c: token_for(ahead(a, -61), c)),
    "not issued yet": (Code.BAD_CREDENTIAL, lambda a, c: token_for(ahead(a, 7), c)),
    "not a token": (Code.BAD_CREDENTIAL, lambda a, c: "a.b.c"),
    "not ASCII": (Code.BAD_CREDENTIAL, lambda a, c: token_for(a, c) + "é"),
    "empty": (Code.BAD_CREDENTIAL, lambda a, c: ""),
}


def ahead(authority: DevelopmentAuthority, seconds: int) -> DevelopmentAuthority:
    """The same keys with another clock."""
    moved = DevelopmentAuthority(authority.trust_domain, clock=lambda: authority.clock() + seconds * SECOND)
    moved.jwt = authority.jwt
    return moved


@pytest.mark.parametrize("name", FORGED)
def test_a_token_that_readers_refuse_is_not_used(name: str, authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """Checked before use, by the code that every reader runs; the one before stays."""
    code, forge = FORGED[name]
    credential = KeyCredential()
    good = token_for(authority, credential)
    credential.accept(good, ME, bundles_of(authority), clock())
    due = credential.due()
    with pytest.raises(EnvelopeError) as caught:
        credential.accept(forge(authority, credential), ME, bundles_of(authority), clock())
    assert caught.value.code is code
    assert credential.sealer(clock()).credential.token == good.encode()
    assert credential.due() == due


def test_withdrawn_nothing_is_sealed(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """And a new one is due at once."""
    credential = KeyCredential()
    credential.accept(token_for(authority, credential), ME, bundles_of(authority), clock())
    credential.withdraw()
    assert credential.due() == 0
    with pytest.raises(IdentityUnavailable):
        credential.sealer(clock())


def test_nothing_shows_key_or_token(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """Not in any repr that a log could hold."""
    credential = KeyCredential()
    token = token_for(authority, credential)
    credential.accept(token, ME, bundles_of(authority), clock())
    shown = repr(credential.sealer(clock())) + repr(credential) + repr(credential.verified)
    assert token not in shown
