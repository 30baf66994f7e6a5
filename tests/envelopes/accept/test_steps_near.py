"""Steps of all profiles against what is nearly right: an ID of another trust domain, longer, shorter or of another case, a
hash that differs in its last byte alone, and a fault in any link of a chain (SPEC.md section 7).

Whoever compares less than the whole is found here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import (
    BODY,
    EDGE,
    EDGE_ID,
    INVENTORY,
    ISSUER,
    PLANNER,
    PROFILE,
    TRUST,
    Delivery,
    Message,
    context_draft,
    refuses,
    statement,
)
from support.audit import Archive, audit_message, decision_of, evidence_items, opened
from support.envelopes import MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, Json, agent, message_id, private_key
from support.near import DOMAINS, LINKS, chain, near, nearly, shown
from support.results import CALL, PRICING, TASK, Requester, answer

from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.errors import BundleRefused, Code
from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.message.user_context import mint_context
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.merkle import leaf_hash, path, root, verify_path
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

OTHERS = {name: Issuer(trust_domain=TrustDomain(name), key=private_key(name)) for name in DOMAINS}
ALL = Trust(
    bundles=TrustBundles(
        [*TRUST.bundles.values(), *(JwtBundle.parse(one.trust_domain, one.jwks()) for one in OTHERS.values())]
    )
)
ROOT: dict[str, object] = {"aud": agent("planner").value, "to": "task.planner.plan", "id": message_id(1)}


def sealer(spiffe_id: SpiffeId) -> Sealer:
    return OTHERS.get(spiffe_id.trust_domain.name, ISSUER).sealer(spiffe_id)


@pytest.mark.parametrize("other", near(INVENTORY), ids=shown)
def test_step_04_refuses_a_message_for_who_is_nearly_us(other: SpiffeId) -> None:
    to = f"task.{NAMES.token(other)}.update"
    task = Message(fields={"aud": other.value, "to": to})
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Delivery(subject=to).accept(task))


@pytest.mark.parametrize("other", near(agent("planner")), ids=shown)
def test_step_04_refuses_an_answer_for_who_is_nearly_us(other: SpiffeId) -> None:
    to = f"_INBOX.{NAMES.token(other)}.1"
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Requester(subject=to).reply(answer(to=to, aud=other.value)))
    to = f"status.{NAMES.token(other)}.{TASK.id.hex()}"
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Requester(subject=to).status(answer("status", to=to, aud=other.value)))


@pytest.mark.parametrize("other", near(PRICING.iss), ids=shown)
def test_step_04_refuses_an_answer_by_who_was_nearly_asked(other: SpiffeId) -> None:
    for kind in ("reply", "chunk", "status"):
        message = replace(answer(kind), sealer=sealer(other))
        requester = Requester(trust=ALL)
        ask = requester.status if kind == "status" else requester.reply
        refuses(Code.UNEXPECTED_REPLY, 4, lambda ask=ask, message=message: ask(message))  # type: ignore[misc]


@pytest.mark.parametrize("other", near(EDGE_ID), ids=shown)
def test_step_10_refuses_a_minter_that_nearly_may(other: SpiffeId) -> None:
    by_other = mint_context(context_draft(), sealer(other))
    root = Message(sealer=sealer(other), fields=ROOT, context=by_other, ancestors=()).ancestor()
    message = Message(context=by_other, ancestors=(root,))
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: Delivery(trust=ALL).accept(message))


@pytest.mark.parametrize("domain", ["other.org", "example.or", "example.organ", "example.org.evil"])
def test_step_10_refuses_a_context_for_nearly_our_trust_domain(domain: str) -> None:
    other = mint_context(context_draft()._replace(aud=TrustDomain(domain)), EDGE)
    root = Message(sealer=EDGE, fields=ROOT, context=other, ancestors=()).ancestor()
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(Message(context=other, ancestors=(root,))))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_11_refuses_a_root_by_who_is_nearly_the_contexts(other: SpiffeId) -> None:
    minted = mint_context(context_draft()._replace(wkl=other), EDGE)
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(context=minted, ancestors=())))


@pytest.mark.parametrize("other", near(EDGE_ID), ids=shown)
def test_step_11_refuses_a_root_by_who_is_nearly_the_edge(other: SpiffeId) -> None:
    root = Message(sealer=sealer(other), context=statement(), ancestors=())
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery(trust=ALL).accept(root))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_11_refuses_a_child_by_who_the_parent_was_nearly_for(other: SpiffeId) -> None:
    parent = Message(sealer=EDGE, fields=ROOT | {"aud": other.value}, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(ancestors=(parent,))))


def test_step_07_refuses_a_credential_that_is_nearly_its_crd() -> None:
    crd = sha256(PLANNER.credential.token).digest()
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(Message(fields={"crd": nearly(crd)})))
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.BAD_CREDENTIAL, 7, lambda: delivery.accept(Message(fields={"crd": nearly(crd)})))


def test_step_09_refuses_a_body_that_is_nearly_what_was_signed() -> None:
    message = Message()
    refuses(
        Code.BAD_DIGEST, 9, lambda: Delivery().accept(Message(fields={"dig": nearly(sha256(message.body).digest())}))
    )
    for kind in ("reply", "chunk"):
        near_miss = replace(answer(kind), fields={**answer(kind).fields, "dig": nearly(sha256(message.body).digest())})
        refuses(Code.BAD_DIGEST, 9, lambda near_miss=near_miss: Requester().reply(near_miss))  # type: ignore[misc]


def test_step_09_refuses_an_audit_body_and_a_recorded_body_that_are_nearly_what_was_signed() -> None:
    items, record = list(evidence_items(opened()).values()), decision_of(opened()).encode()
    whole = root([leaf_hash(item) for item in (*items, record)])
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().record(audit_message(items, [record], dig=nearly(whole))))
    bent = Message(context=None, ancestors=(), fields={"dig": nearly(sha256(BODY).digest())})
    decided = decision_of(opened())._replace(header=bent.raw(), proof=bent.prf(), body=BODY)
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(decided, items))
    refuses(Code.BAD_DIGEST, 9, lambda: Archive().decided(decided._replace(body=None), items, body=BODY))


def test_step_10_refuses_a_context_that_is_nearly_ctx() -> None:
    ctx = nearly(sha256(statement().payload).digest())
    root = Message(sealer=EDGE, fields=ROOT | {"ctx": ctx}, ancestors=()).ancestor()
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(Message(fields={"ctx": ctx}, ancestors=(root,))))


def test_step_11_refuses_a_parent_that_is_nearly_par_and_a_context_that_is_nearly_the_parents() -> None:
    message = Message()
    par = sha256(message.ancestors[0].header).digest()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(fields={"par": nearly(par)})))
    ctx = nearly(sha256(statement().payload).digest())
    root = Message(sealer=EDGE, fields=ROOT | {"ctx": ctx}, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(ancestors=(root,))))


@pytest.mark.parametrize("place", range(LINKS))
def test_step_11_refuses_a_bad_proof_or_credential_of_any_link(place: int) -> None:
    assert len(Delivery().accept(chain(place)).chain) == LINKS + 1
    forged = Proof(1, 0, (), bytes([0, 1]) * 32)
    refuses(Code.BAD_SIGNATURE, 11, lambda: Delivery().accept(chain(place, proof=forged)))
    stranger = ISSUER.sealer(agent("stranger"))
    refuses(Code.BAD_CREDENTIAL, 11, lambda: Delivery().accept(chain(place, bent=stranger)))


@pytest.mark.parametrize("place", range(LINKS))
def test_step_12_refuses_what_any_link_does_not_grant(place: int) -> None:
    ancestors: tuple[Ancestor, ...] = ()
    sender = EDGE
    for number in range(LINKS):
        name = f"hop-{number}"
        grants = {"grt": ["pricing.quote"]} if number == place else {"grt": ["inventory.*"]}
        fields = {"aud": agent(name).value, "to": f"task.{name}.x", "id": message_id(30 + number), **grants}
        ancestors = (Message(sealer=sender, fields=fields, ancestors=ancestors).ancestor(), *ancestors)
        sender = ISSUER.sealer(agent(name))
    refuses(Code.GRANT_EXCEEDED, 12, lambda: Delivery().accept(Message(sealer=sender, ancestors=ancestors)))


def test_a_template_is_compared_with_its_case() -> None:
    names = Names(TRUST_DOMAIN, "/Agent/{name}/X")
    assert names.name_of(SpiffeId("spiffe://example.org/Agent/a/X")) == "a"
    for other in ("/agent/a/X", "/AGENT/a/X", "/Agent/a/x"):
        assert names.name_of(SpiffeId(f"spiffe://example.org{other}")) is None
        assert names.token(SpiffeId(f"spiffe://example.org{other}")).startswith("id-")


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
@pytest.mark.parametrize("remembered", [False, True])
def test_step_07_refuses_a_credential_for_nearly_the_sender(other: SpiffeId, remembered: bool) -> None:
    # Every trust domain has the same key, so that nothing but the name is another.
    same = Trust(
        bundles=TrustBundles(JwtBundle.parse(TrustDomain(name), ISSUER.jwks()) for name in ("example.org", *OTHERS))
    )
    delivery = Delivery(trust=same)
    if remembered:
        delivery.accept(Message(context=None, ancestors=()))
    message = Message(context=None, ancestors=(), fields={"iss": other.value})
    refuses(Code.BAD_CREDENTIAL, 7, lambda: delivery.accept(message))


@pytest.mark.parametrize(
    "token",
    [
        *(ISSUER.token(PLANNER.iss, PLANNER.key.public, header={"alg": alg}) for alg in ("ES25", "ES2566", "es256")),
        *(ISSUER.token(PLANNER.iss, PLANNER.key.public, header={"typ": typ}) for typ in ("JW", "JWTS", "jwt", "JOS")),
        *(
            ISSUER.token(PLANNER.iss, PLANNER.key.public, claims={"aud": aud})
            for urn in [PLANNER.key.public.thumbprint]
            for aud in (urn[:-1], f"{urn}x", urn.upper(), urn.lower())
        ),
    ],
)
def test_step_07_refuses_a_token_that_says_nearly_what_it_must(token: bytes) -> None:
    message = Message(context=None, ancestors=(), credential=Credential(1, token))
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(message))


def test_step_07_takes_times_from_0_on() -> None:
    token = ISSUER.token(PLANNER.iss, PLANNER.key.public, claims={"iat": 0, "exp": 1})
    message = Message(context=None, ancestors=(), credential=Credential(1, token))
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: Delivery().accept(message))


def test_step_08_refuses_nearly_the_root() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(3)]
    whole = root(leaves)
    verify_path(leaves[1], 3, 1, path(leaves, 1), whole)
    refuses(Code.BAD_SIGNATURE, 8, lambda: verify_path(leaves[1], 3, 1, path(leaves, 1), nearly(whole)))


def test_step_04_refuses_an_answer_on_nearly_the_subject_that_was_asked_for() -> None:
    pending = replace(PendingRequest.of(CALL), rpl="_INBOX.planner.ab")
    for to in ("_INBOX.planner.abc", "_INBOX.planner.a", "_INBOX.planner.aB"):
        requester = Requester(subject=to, requests={CALL.digest: OpenRequest(pending)})
        message = answer(to=to)
        refuses(Code.UNEXPECTED_REPLY, 4, lambda requester=requester, message=message: requester.reply(message))  # type: ignore[misc]


@pytest.mark.parametrize("to", ["task.inventory.Update", "task.inventory.update2", "task.inventory.updat"])
def test_step_03_refuses_nearly_the_subject(to: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery().accept(Message(fields={"to": to})))


@pytest.mark.parametrize("rpl", ["_INBOX.Planner.1", "_inbox.planner.1", "_INBOX.planners.1"])
def test_step_03_refuses_a_reply_subject_in_nearly_the_inbox(rpl: str) -> None:
    call = Message(fields={"t": "call", "to": "call.inventory.update", "rpl": rpl, "exp": NOW + MINUTE})
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery(core=True, subject="call.inventory.update").accept(call))


@pytest.mark.parametrize("other", near(PLANNER.iss), ids=shown)
def test_step_03_refuses_nearly_the_owner_of_an_own_subject(other: SpiffeId) -> None:
    own = OwnSubject(subject="orders.created", kind=Kind.EVENT, owner=other, action="orders.created")
    event = Message(context=None, ancestors=(), fields={"t": "event", "to": "orders.created", "aud": None, "end": None})
    delivery = Delivery(subject="orders.created", profile=replace(PROFILE, own_subjects=own_subjects(own)))
    refuses(Code.WRONG_SUBJECT, 3, lambda: delivery.accept(event))


def test_grants_are_whole_and_any_of_them_counts() -> None:
    assert covers(("a.b", "c.d"), "a.b")
    assert covers(("c.d", "a.b"), "a.b")
    for grant in ("A.b", "a.B", "A.*", "a.b2", "a.bb.*"):
        assert not covers((grant,), "a.b")


def test_names_that_are_nearly_in_the_table() -> None:
    table = {"billing": agent("payments"), "x": SpiffeId("spiffe://other.org/agent/y")}
    names = Names(TRUST_DOMAIN, table=table)
    for name in ("payments2", "Payments", "y", "billings", "X", "ID-a", "payment"):
        assert names.name_of(names.id_of(name)) == name
    assert names.id_of("Billing") == agent("Billing")


def test_subjects_that_are_nearly_reserved() -> None:
    for subject in ("Task.x", "tasks.x", "_inbox.x"):
        assert OwnSubject(subject=subject, kind=Kind.EVENT, owner=INVENTORY, action="a.b").subject == subject


def jwk(**members: Json) -> JwtBundle:
    keys = {**ISSUER.jwk(), **members}
    return JwtBundle.parse(TRUST_DOMAIN, json.dumps({"keys": [keys]}).encode())


def test_step_07_takes_and_leaves_out_what_is_nearly_a_key() -> None:
    for members in ({"used": "x"}, {"USE": "x"}, {"us": "x"}):
        assert jwk(**members).keys
    for members in (
        {"use": "jwt-svid2"},
        {"use": "jwt"},
        {"use": "JWT-SVID"},
        {"kty": "EC2"},
        {"kty": "ec"},
        {"kty": "E"},
    ):
        assert not jwk(**members).keys
    for members in (
        {"crv": "P-2566"},
        {"crv": "p-256"},
        {"crv": "P-25"},
        {"kty": "rsa", "n": "x"},
        {"kty": "RSA2", "n": "x"},
    ):
        assert not jwk(**members).keys
    both = json.dumps({"keys": [{**ISSUER.jwk(), "kid": kid} for kid in ("k", "K", "k2")]}).encode()
    assert len(JwtBundle.parse(TRUST_DOMAIN, both).keys) == 3
    assert JwtBundle.parse(TRUST_DOMAIN, both + b" " * (65_536 - len(both))).keys
    with pytest.raises(BundleRefused):
        JwtBundle.parse(TRUST_DOMAIN, both + b" " * (65_537 - len(both)))
