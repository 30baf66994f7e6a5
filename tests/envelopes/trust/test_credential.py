"""Step 7 by itself: what a credential says, what is remembered of it, and what is asked again (SPEC.md section 5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256

import pytest
from support.acceptance import ISSUER, PLANNER, TRUST, refuses
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, Issuer, Json, agent, private_key, signing_key
from support.jose import ALGORITHMS, jwk_for, sign_as

from sealbus.envelopes.encoding.jws import VerificationKey, verify_jws
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import ClaimedKey, VerifiedCredential, verify_credential
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId

IAT, EXP = NOW - MINUTE, NOW + HOUR


def verify(
    token: bytes = PLANNER.credential.token,
    *,
    kind: int = 1,
    iss: SpiffeId = PLANNER.iss,
    key: PublicKey = PLANNER.key.public,
    crd: bytes | None = None,
    reference: int = NOW,
    trust: Trust = TRUST,
    caches: Caches | None = None,
    step: int = 7,
) -> VerifiedCredential:
    """Verify a credential of the planner, unless said otherwise."""
    return verify_credential(
        Credential(kind, token),
        ClaimedKey(iss, key, crd if crd is not None else sha256(token).digest()),
        reference=reference,
        trust=trust,
        caches=caches if caches is not None else Caches(),
        step=step,
    )


def made(claims: dict[str, Json] | None = None, header: dict[str, Json] | None = None) -> bytes:
    """Return a JWT-SVID of the planner with claims or header entries changed."""
    return ISSUER.token(PLANNER.iss, PLANNER.key.public, claims=claims, header=header)


def trusting(*jwks: bytes) -> Trust:
    """Return trust in one bundle."""
    return Trust(bundles=TrustBundles(JwtBundle.parse(TRUST_DOMAIN, jwk) for jwk in jwks))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record by algorithm each signature that is verified."""
    calls: list[str] = []

    def counting(alg: str, key: VerificationKey, signed: bytes, signature: bytes) -> None:
        calls.append(alg)
        verify_jws(alg, key, signed, signature)

    monkeypatch.setattr("sealbus.envelopes.trust.credential.verify_jws", counting)
    return calls


def test_a_verified_credential_says_who_and_when() -> None:
    assert verify() == VerifiedCredential(sub=PLANNER.iss, iat=IAT, exp=EXP)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm(alg: str) -> None:
    claims: dict[str, Json] = {
        "sub": PLANNER.iss.value,
        "aud": PLANNER.key.public.thumbprint,
        "iat": IAT // SECOND,
        "exp": EXP // SECOND,
    }
    trust = trusting(json.dumps({"keys": [jwk_for(alg)]}).encode())
    token = sign_as(alg, claims)
    assert verify(token, trust=trust).sub == PLANNER.iss
    signed, _, signature = token.rpartition(b".")
    first = b"B" if signature.startswith(b"A") else b"A"
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(b".".join((signed, first + signature[1:])), trust=trust))


@pytest.mark.parametrize("step", [7, 10, 11])
def test_refusals_are_counted_at_the_callers_step(step: int) -> None:
    caches = Caches()
    for code, call in _refusals(step, caches):
        refuses(code, step, call)
    assert len(caches.credentials) == 0


def _refusals(step: int, caches: Caches) -> list[tuple[Code, Callable[[], object]]]:
    empty, nobody = trusting(b'{"keys":[]}'), trusting()
    revoked = Trust(bundles=TRUST.bundles, revoked_before={PLANNER.iss: NOW})
    forged = Issuer(key=private_key("forger")).token(PLANNER.iss, PLANNER.key.public)
    bad: list[Callable[[], object]] = [
        lambda: verify(kind=2, step=step, caches=caches),
        lambda: verify(crd=bytes(32), step=step, caches=caches),
        lambda: verify(b"a.b", step=step, caches=caches),
        lambda: verify(ISSUER.sign(b"[]", b"{}"), step=step, caches=caches),
        lambda: verify(ISSUER.sign(b"{}", b"[]"), step=step, caches=caches),
        lambda: verify(made(header={"cty": "x"}), step=step, caches=caches),
        lambda: verify(made(header={"alg": "none"}), step=step, caches=caches),
        lambda: verify(made(header={"kid": 1}), step=step, caches=caches),
        lambda: verify(made(header={"typ": "wit+jwt"}), step=step, caches=caches),
        lambda: verify(made({"aud": "x"}), step=step, caches=caches),
        lambda: verify(made({"sub": "x"}), step=step, caches=caches),
        lambda: verify(made({"iat": None}), step=step, caches=caches),
        lambda: verify(made({"iat": 2, "exp": 2}), step=step, caches=caches),
        lambda: verify(made({"iat": 0, "exp": 86_401}), step=step, caches=caches),
        lambda: verify(made(header={"alg": "RS256"}), step=step, caches=caches),
        lambda: verify(reference=IAT - 5 * SECOND - 1, step=step, caches=caches),
        lambda: verify(forged, step=step, caches=caches),
    ]
    return [
        *((Code.BAD_CREDENTIAL, call) for call in bad),
        (Code.UNKNOWN_TRUST_DOMAIN, lambda: verify(trust=nobody, step=step, caches=caches)),
        (Code.UNKNOWN_KEY, lambda: verify(trust=empty, step=step, caches=caches)),
        (Code.CREDENTIAL_EXPIRED, lambda: verify(reference=EXP, step=step, caches=caches)),
        (Code.REVOKED, lambda: verify(trust=revoked, step=step, caches=caches)),
    ]


def test_a_signature_is_verified_once(counted: list[str]) -> None:
    caches = Caches()
    for _ in range(3):
        verify(caches=caches)
    assert counted == ["ES256"]


def test_a_bundle_that_came_anew_with_the_same_key_verifies_nothing_anew(counted: list[str]) -> None:
    caches = Caches()
    verify(caches=caches)
    verify(caches=caches, trust=trusting(ISSUER.jwks()))
    assert counted == ["ES256"]


def test_a_bundle_with_another_key_under_that_kid_verifies_anew(counted: list[str]) -> None:
    caches = Caches()
    verify(caches=caches)
    other = trusting(Issuer(key=private_key("other")).jwks())
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(caches=caches, trust=other))
    assert counted == ["ES256", "ES256"]
    verify(caches=caches)
    assert len(counted) == 2


def test_a_key_of_another_type_under_that_kid_does_not_fit(counted: list[str]) -> None:
    caches = Caches()
    verify(caches=caches)
    for alg in ("ES384", "RS256"):
        other = trusting(json.dumps({"keys": [jwk_for(alg)]}).encode())
        refuses(Code.BAD_CREDENTIAL, 7, partial(verify, caches=caches, trust=other))
    assert counted == ["ES256"]


def test_what_is_remembered_is_judged_anew_by_all_but_its_signature() -> None:
    caches = Caches()
    verify(caches=caches)
    revoked = Trust(bundles=TRUST.bundles, revoked_before={PLANNER.iss: IAT + 1, agent("x"): 0})
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(caches=caches, reference=IAT - 5 * SECOND - 1))
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: verify(caches=caches, reference=EXP))
    refuses(Code.REVOKED, 7, lambda: verify(caches=caches, trust=revoked))
    refuses(Code.UNKNOWN_KEY, 7, lambda: verify(caches=caches, trust=trusting(b'{"keys":[]}')))
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: verify(caches=caches, trust=trusting()))
    verify(caches=caches, reference=EXP - 1)


def test_what_is_remembered_counts_for_that_token_kind_sender_and_key_only() -> None:
    caches, token = Caches(), PLANNER.credential.token
    verify(caches=caches)
    crd = sha256(token).digest()
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(caches=caches, kind=2))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(made({"x": 1}), caches=caches, crd=crd))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(caches=caches, iss=agent("mallory")))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: verify(caches=caches, key=signing_key("mallory").public))
    # Something else under that hash, which only a mistake of ours could put there, is not taken for a credential.
    caches.credentials.put(crd, "not a credential")
    assert verify(caches=caches).sub == PLANNER.iss


def test_an_expired_token_is_refused_before_its_signature_is_looked_at(counted: list[str]) -> None:
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: verify(reference=EXP))
    refuses(Code.REVOKED, 7, lambda: verify(trust=Trust(bundles=TRUST.bundles, revoked_before={PLANNER.iss: NOW})))
    assert counted == []


def test_a_revocation_does_not_reach_what_was_issued_at_its_time() -> None:
    assert verify(trust=Trust(bundles=TRUST.bundles, revoked_before={PLANNER.iss: IAT})).iat == IAT


def test_times_hold_at_their_edges() -> None:
    assert verify(reference=IAT - 5 * SECOND).iat == IAT
    assert verify(reference=EXP - 1).exp == EXP
