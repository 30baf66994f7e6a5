"""The archive profile against what is nearly right, and at the edges of its times (SPEC.md section 7).

As `test_accept_steps_near.py` for the live profile. The independent verifier is asked as well, each time.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import EDGE, EDGE_ID, ISSUER, MINTERS, PLANNER, Message, context_draft, refuses, statement
from support.audit import Archive, audit_message, decision_of, opened
from support.envelopes import HOUR, MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, Json, agent, message_id, private_key
from support.near import DOMAINS, LINKS, chain, near, nearly, shown

from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import ContextDraft, mint_context
from sealbus.envelopes.records.archive import ArchiveProfile, VerifiedDecided
from sealbus.envelopes.records.body import ancestor_item, context_item, credential_item
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DECISION = decision_of(opened())
FORGED = Proof(1, 0, (), bytes([0, 1]) * 32)
# Every trust domain has the same key, so that nothing but the name is another.
SAME = TrustBundles(JwtBundle.parse(TrustDomain(name), ISSUER.jwks()) for name in ("example.org", *DOMAINS))
ROOT: dict[str, object] = {"aud": PLANNER.iss.value, "to": "task.planner.plan", "id": message_id(1)}


def sealer(spiffe_id: SpiffeId) -> Sealer:
    return Issuer(trust_domain=spiffe_id.trust_domain, key=private_key("issuer")).sealer(spiffe_id)


def judged(message: Message, archive: Archive | None = None) -> VerifiedDecided:
    """Prove again what was decided on `message`, with all evidence for it."""
    items = [credential_item(message.cred())]
    if message.context is not None:
        items.append(context_item(message.context.payload, message.context.proof))
        items.append(credential_item(message.context.credential))
    for one in message.ancestors:
        items += [ancestor_item(one.header, one.proof), credential_item(one.credential)]
    decision = DECISION._replace(header=message.raw(), proof=message.prf())
    return (archive or Archive(bundles=SAME)).decided(decision, list(dict.fromkeys(items)))


def headed(**header: Json) -> Message:
    token = ISSUER.token(PLANNER.iss, PLANNER.key.public, header=header)
    return Message(context=None, ancestors=(), credential=Credential(1, token))


def claiming(**claims: Json) -> Message:
    token = ISSUER.token(PLANNER.iss, PLANNER.key.public, claims=claims)
    return Message(context=None, ancestors=(), credential=Credential(1, token))


def started(draft: ContextDraft, by: Sealer = EDGE, **entries: object) -> Message:
    """Return a root of a chain with a context of `draft`."""
    return Message(sealer=by, fields=entries, context=mint_context(draft, EDGE), ancestors=())


def test_step_07_refuses_a_credential_that_is_nearly_its_crd() -> None:
    message = audit_message([], [CheckpointRecord(note=b"n").encode()])
    crd = sha256(message.cred().token).digest()
    assert Archive().record(message).header.crd == crd
    bent = replace(message, fields={**message.fields, "crd": nearly(crd)})
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Archive().record(bent))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_07_refuses_a_credential_for_nearly_the_sender(other: SpiffeId) -> None:
    message = Message(context=None, ancestors=(), fields={"iss": other.value})
    refuses(Code.BAD_CREDENTIAL, 7, lambda: judged(message))


@pytest.mark.parametrize(
    "message",
    [
        *(headed(alg=alg) for alg in ("ES25", "ES2566", "es256")),
        *(headed(typ=typ) for typ in ("JW", "JWTS", "jwt", "JOS")),
        *(
            claiming(aud=aud)
            for urn in [PLANNER.key.public.thumbprint]
            for aud in (urn[:-1], f"{urn}x", urn.upper(), urn.lower())
        ),
    ],
)
def test_step_07_refuses_a_token_that_says_nearly_what_it_must(message: Message) -> None:
    refuses(Code.BAD_CREDENTIAL, 7, lambda: judged(message))


def test_step_07_accepts_and_refuses_by_the_edges_of_a_tokens_times() -> None:
    stored = DECISION.place.time // SECOND
    day = 24 * HOUR // SECOND
    assert judged(claiming(iat=stored + 5))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: judged(claiming(iat=stored + 6)))
    assert judged(claiming(iat=stored, exp=stored + day))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: judged(claiming(iat=stored, exp=stored + day + 1)))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: judged(claiming(iat=stored + 2, exp=stored + 2)))


@pytest.mark.parametrize("other", near(EDGE_ID), ids=shown)
def test_step_10_refuses_a_minter_that_nearly_may(other: SpiffeId) -> None:
    by_other = mint_context(context_draft(), sealer(other))
    message = Message(sealer=sealer(other), context=by_other, ancestors=())
    assert judged(message, Archive(bundles=SAME, profile=ArchiveProfile(names=NAMES, minters=MINTERS | {other})))
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: judged(message))


@pytest.mark.parametrize("domain", ["other.org", "example.or", "example.organ", "example.org.evil"])
def test_step_10_refuses_a_context_for_nearly_our_trust_domain(domain: str) -> None:
    assert judged(started(context_draft()._replace(aud=TRUST_DOMAIN)))
    refuses(Code.BAD_CONTEXT, 10, lambda: judged(started(context_draft()._replace(aud=TrustDomain(domain)))))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_11_refuses_a_root_by_who_is_nearly_the_contexts(other: SpiffeId) -> None:
    assert judged(started(context_draft()._replace(wkl=other), by=sealer(other)))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(started(context_draft()._replace(wkl=other), by=PLANNER)))


@pytest.mark.parametrize("other", near(EDGE_ID), ids=shown)
def test_step_11_refuses_a_root_by_who_is_nearly_the_edge(other: SpiffeId) -> None:
    refuses(Code.BAD_CHAIN, 11, lambda: judged(started(context_draft(), by=sealer(other))))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_11_refuses_a_child_by_who_the_parent_was_nearly_for(other: SpiffeId) -> None:
    parent = Message(sealer=EDGE, fields=ROOT | {"aud": other.value}, ancestors=()).ancestor()
    assert judged(Message(sealer=sealer(other), ancestors=(parent,)))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(Message(ancestors=(parent,))))


def test_step_11_refuses_a_parent_with_nearly_the_context() -> None:
    ctx = nearly(sha256(statement().payload).digest())
    parent = Message(sealer=EDGE, fields=ROOT | {"ctx": ctx}, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: judged(Message(ancestors=(parent,))))


def test_step_11_accepts_and_refuses_by_the_edges_of_the_parents_time() -> None:
    def child(iat: int, **parents: object) -> Message:
        parent = Message(sealer=EDGE, fields=ROOT | parents, context=None, ancestors=()).ancestor()
        return Message(fields={"iat": iat, "exp": NOW + MINUTE, "end": NOW + MINUTE}, context=None, ancestors=(parent,))

    assert judged(child(NOW - 5 * SECOND))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(child(NOW - 5 * SECOND - 1)))
    # The end of the parent is no later than its child's, and so comes after when the child was made.
    assert judged(child(NOW + MINUTE - 1, exp=NOW + MINUTE, end=NOW + MINUTE))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(child(NOW, exp=NOW + MINUTE - 1, end=NOW + MINUTE - 1)))


def test_step_11_accepts_and_refuses_by_the_start_and_end_of_the_context() -> None:
    draft = context_draft()
    assert judged(started(draft._replace(iat=NOW + 5 * SECOND)))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(started(draft._replace(iat=NOW + 5 * SECOND + 1))))
    assert judged(started(draft._replace(iat=NOW - MINUTE, exp=NOW + 1)))
    refuses(Code.BAD_CHAIN, 11, lambda: judged(started(draft._replace(iat=NOW - MINUTE, exp=NOW))))


@pytest.mark.parametrize("place", range(LINKS))
def test_step_11_refuses_a_bad_proof_or_credential_of_any_link(place: int) -> None:
    assert len(judged(chain(place)).chain) == LINKS + 1
    refuses(Code.BAD_SIGNATURE, 11, lambda: judged(chain(place, proof=FORGED)))
    refuses(Code.BAD_CREDENTIAL, 11, lambda: judged(chain(place, bent=ISSUER.sealer(agent("stranger")))))
