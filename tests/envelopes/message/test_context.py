"""Minting and step 10 by itself: the statement that an edge signs about a user (SPEC.md section 6)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import EDGE, EDGE_ID, MINTERS, PLANNER, TRUST, context_draft, refuses, statement
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, agent, signing_key

from sealbus.envelopes.errors import Code, SealError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.message.user_context import (
    ContextDraft,
    SubjectType,
    UserContext,
    mint_context,
    parsed_context,
    verify_context,
)
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, sign_batch
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain


def verify(
    given: Statement | None,
    ctx: bytes | None = None,
    *,
    trust_domain: TrustDomain = TRUST_DOMAIN,
    minters: frozenset[SpiffeId] = MINTERS,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    trust: Trust = TRUST,
    caches: Caches | None = None,
    step: int = 10,
) -> UserContext | None:
    """Verify a statement under its own hash, unless said otherwise."""
    return verify_context(
        given,
        ctx if ctx is not None or given is None else sha256(given.payload).digest(),
        trust_domain=trust_domain,
        minters=minters,
        lifetimes=lifetimes,
        trust=trust,
        caches=caches if caches is not None else Caches(),
        step=step,
    )


def test_what_was_minted_is_verified() -> None:
    draft = context_draft()._replace(
        ten="acme", wkl=agent("planner"), acr="high", amr=("pwd",), aut=NOW - HOUR, req={"ip": "192.0.2.1"},
        sub="mia@partner.example", typ=SubjectType.CLIENT, dom=TrustDomain("partner.example"),
    )  # fmt: skip
    context = verify(mint_context(draft, EDGE))
    assert context is not None
    assert (context.iss, context.key, context.crd) == (EDGE_ID, EDGE.key.public, EDGE.crd)
    assert ContextDraft(**{name: getattr(context, name) for name in ContextDraft._fields}) == draft


def test_a_context_needs_no_claims() -> None:
    context = verify(mint_context(context_draft()._replace(clm=None, scp=()), EDGE))
    assert context is not None
    assert (dict(context.clm), context.scp) == ({}, ())


def test_a_draft_shows_no_user() -> None:
    assert "u-1001" not in repr(context_draft())


@pytest.mark.parametrize(
    "draft",
    [
        pytest.param(context_draft()._replace(txn=b"x"), id="txn"),
        pytest.param(context_draft()._replace(sub="x" * 257), id="sub too long"),
        pytest.param(context_draft()._replace(sub="\x00"), id="sub with a control character"),
        pytest.param(context_draft()._replace(scp=tuple(str(n) for n in range(33))), id="33 scopes"),
        pytest.param(context_draft()._replace(exp=NOW), id="exp"),
        pytest.param(context_draft()._replace(end=NOW + 25 * HOUR), id="end"),
        pytest.param(context_draft()._replace(iat=-1), id="iat"),
        pytest.param(context_draft()._replace(aut=2**53), id="aut"),
        pytest.param(context_draft()._replace(dom=TrustDomain("partner.example")), id="sub of nobody's domain"),
        pytest.param(context_draft()._replace(clm={f"{n:03}": "x" * 100 for n in range(90)}), id="over 8,192 bytes"),
        pytest.param(context_draft()._replace(iat=NOW + HOUR, exp=NOW + 2 * HOUR), id="after the credential"),
    ],
)
def test_what_no_reader_would_take_is_not_minted(draft: ContextDraft) -> None:
    with pytest.raises(SealError):
        mint_context(draft, EDGE)


def test_no_statement_without_ctx_and_no_ctx_without_statement() -> None:
    assert verify(None) is None
    refuses(Code.BAD_CONTEXT, 10, lambda: verify(None, bytes(32)))
    refuses(
        Code.BAD_CONTEXT,
        10,
        lambda: verify_context(
            statement(),
            None,
            trust_domain=TRUST_DOMAIN,
            minters=MINTERS,
            lifetimes=DEFAULT_LIFETIMES,
            trust=TRUST,
            caches=Caches(),
        ),
    )


@pytest.mark.parametrize("step", [10, 11])
def test_refusals_have_their_codes_and_the_callers_step(step: int) -> None:
    good = statement()
    nobody = Trust(bundles=type(TRUST.bundles)())
    revoked = replace(TRUST, revoked_before={EDGE_ID: NOW})
    [forged] = sign_batch([leaf_hash(good.payload)], CONTEXT_TYPE, signing_key("forger"))
    misshapen = Statement(b"\x80", good.proof, good.credential)
    refuses(Code.BAD_CONTEXT, step, lambda: verify(good, bytes(32), step=step))
    refuses(Code.BAD_CONTEXT, step, lambda: verify(misshapen, step=step))
    refuses(Code.BAD_CONTEXT, step, lambda: verify(good, trust_domain=TrustDomain("other.org"), step=step))
    refuses(Code.CONTEXT_ISSUER_REFUSED, step, lambda: verify(good, minters=frozenset(), step=step))
    refuses(Code.CONTEXT_ISSUER_REFUSED, step, lambda: verify(mint_context(context_draft(), PLANNER), step=step))
    refuses(Code.BAD_CREDENTIAL, step, lambda: verify(good._replace(credential=Credential(1, b"x")), step=step))
    refuses(Code.UNKNOWN_TRUST_DOMAIN, step, lambda: verify(good, trust=nobody, step=step))
    refuses(Code.REVOKED, step, lambda: verify(good, trust=revoked, step=step))
    refuses(Code.BAD_SIGNATURE, step, lambda: verify(good._replace(proof=forged), step=step))


def test_the_credential_is_judged_at_the_contexts_own_iat() -> None:
    early = mint_context(context_draft()._replace(iat=NOW - 2 * MINUTE), EDGE)
    refuses(Code.BAD_CREDENTIAL, 10, lambda: verify(early))


def test_what_is_remembered_is_judged_anew_by_all_but_form_and_proof() -> None:
    caches, good = Caches(), statement()
    first = verify(good, caches=caches)
    assert verify(good, caches=caches) is first
    assert parsed_context(good.payload, sha256(good.payload).digest(), caches) is first
    [forged] = sign_batch([leaf_hash(good.payload)], CONTEXT_TYPE, signing_key("forger"))
    revoked = replace(TRUST, revoked_before={EDGE_ID: NOW})
    refuses(Code.BAD_CONTEXT, 10, lambda: verify(good, caches=caches, trust_domain=TrustDomain("other.org")))
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: verify(good, caches=caches, minters=frozenset()))
    refuses(Code.REVOKED, 10, lambda: verify(good, caches=caches, trust=revoked))
    shorter = Lifetimes(context_start=MINUTE)
    refuses(Code.BAD_CONTEXT, 10, lambda: verify(good, caches=caches, lifetimes=shorter))
    refuses(Code.BAD_SIGNATURE, 10, lambda: verify(good._replace(proof=forged), caches=caches))
    refuses(Code.BAD_CREDENTIAL, 10, lambda: verify(good._replace(credential=Credential(1, b"x")), caches=caches))
    other = mint_context(context_draft()._replace(sub="u-1002"), EDGE)
    assert parsed_context(other.payload, sha256(good.payload).digest(), caches).sub == "u-1002"
    refuses(Code.BAD_CONTEXT, 10, lambda: verify(other, sha256(good.payload).digest(), caches=caches))
    assert verify(good, caches=caches) is first


def test_another_proof_of_the_same_payload_is_verified_and_then_remembered() -> None:
    caches, good = Caches(), statement()
    first = verify(good, caches=caches)
    leaves = [leaf_hash(good.payload), bytes(32)]
    again = good._replace(proof=sign_batch(leaves, CONTEXT_TYPE, EDGE.key)[0])
    assert verify(again, caches=caches) is first
    caches.contexts.put(sha256(good.payload).digest(), "not a context")
    assert verify(good, caches=caches) == first
