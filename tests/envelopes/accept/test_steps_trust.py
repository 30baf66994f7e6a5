"""Steps 7, 8, 10 and 11 of the live profile, clause by clause: credential, proof, context, chain (SPEC.md section 7).

What steps 7 and 8 refuse in a message, they refuse in a context (counted at step 10) and in an ancestor (at step 11).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import pytest
from support.acceptance import (
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
    context_statement,
    refuses,
    root_task,
    statement,
)
from support.envelopes import (
    HOUR,
    MINUTE,
    NOW,
    TRUST_DOMAIN,
    Issuer,
    Json,
    agent,
    base64url,
    message_id,
    private_key,
    signing_key,
)
from support.jose import ALGORITHMS, jwk_for, sign_as

from sealbus.envelopes.encoding.codec import Value, decode, pack
from sealbus.envelopes.errors import Code
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, FORMAT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.chain import verify_chain
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import ContextDraft, mint_context
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import VerifiedRoots
from sealbus.envelopes.trust.merkle import leaf_hash, verify_path
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, pae, sign_batch, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DAY = 24 * HOUR
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FOREIGN = Issuer(trust_domain=TrustDomain("other.org"), key=private_key("foreign issuer"))
BOTH = Trust(bundles=TrustBundles([*TRUST.bundles.values(), JwtBundle.parse(FOREIGN.trust_domain, FOREIGN.jwks())]))

INVENTORY_KEY = signing_key("inventory").public

OTHER_ISSUER = Issuer(key=private_key("another issuer"))

OTHER_TYPE = {MESSAGE_TYPE: CONTEXT_TYPE, CONTEXT_TYPE: MESSAGE_TYPE}

EMPTY = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, b'{"keys":[]}')]))


def with_token(sealer: Sealer, token: bytes, kind: int = 1) -> Sealer:
    """Return `sealer` with another credential, also one that no sealer would take."""
    copy = replace(sealer)
    object.__setattr__(copy, "credential", Credential(kind, token))
    object.__setattr__(copy, "crd", sha256(token).digest())
    return copy


def in_message(token: Callable[[Sealer], bytes], kind: int = 1) -> Message:
    """Return a task whose sender has the credential that `token` makes for it."""
    return Message(sealer=with_token(PLANNER, token(PLANNER), kind))


def in_context(token: Callable[[Sealer], bytes], kind: int = 1) -> Message:
    """Return a task whose context is signed by an edge that has the credential that `token` makes for it."""
    edge = with_token(EDGE, token(EDGE), kind)
    minted = mint_context(context_draft(), edge)
    return Message(
        context=minted, ancestors=(Message(fields=ROOT, sealer=EDGE, context=minted, ancestors=()).ancestor(),)
    )


def in_ancestor(token: Callable[[Sealer], bytes], kind: int = 1) -> Message:
    """Return a task whose parent was sent by an edge that has the credential that `token` makes for it."""
    edge = with_token(EDGE, token(EDGE), kind)
    return Message(ancestors=(Message(fields=ROOT, sealer=edge, ancestors=()).ancestor(),))


ROOT: dict[str, object] = {"aud": agent("planner").value, "to": "task.planner.plan", "id": message_id(1)}
PLACES = {7: in_message, 10: in_context, 11: in_ancestor}


def token(sealer: Sealer, **claims: Json) -> bytes:
    """Return a JWT-SVID for `sealer` with some claims changed; None stays null."""
    return ISSUER.token(sealer.iss, sealer.key.public, claims=claims)


def headed(sealer: Sealer, **header: Json) -> bytes:
    """Return a JWT-SVID for `sealer` with some of its JOSE header changed."""
    return ISSUER.token(sealer.iss, sealer.key.public, header=header)


def without(sealer: Sealer, *, header: str = "", claim: str = "") -> bytes:
    """Return a JWT-SVID for `sealer` that lacks an entry of its JOSE header or a claim."""
    jose, claims, _ = token(sealer).split(b".")
    entries, body = (json.loads(urlsafe_b64decode(part + b"==")) for part in (jose, claims))
    entries.pop(header, None)
    body.pop(claim, None)
    return ISSUER.sign(json.dumps(entries).encode(), json.dumps(body).encode())


def raw(sealer: Sealer, header: bytes | None = None, claims: bytes | None = None) -> bytes:
    """Return a JWS over exactly these JSON bytes, the others as in a valid JWT-SVID for `sealer`."""
    jose, body, _ = (urlsafe_b64decode(part + b"==") for part in token(sealer).split(b"."))
    return ISSUER.sign(header if header is not None else jose, claims if claims is not None else body)


# Step 7, and the same inside steps 10 and 11.


@pytest.mark.parametrize("step", PLACES)
def test_step_07_accepts_a_credential(step: int) -> None:
    Delivery().accept(PLACES[step](token))


@pytest.mark.parametrize("step", PLACES)
def test_step_07_accepts_an_audience_that_is_a_string_and_no_typ(step: int) -> None:
    Delivery().accept(PLACES[step](lambda s: token(s, aud=s.key.public.thumbprint, other=[{}], jti="x")))
    Delivery().accept(PLACES[step](lambda s: without(s, header="typ")))
    Delivery().accept(PLACES[step](lambda s: headed(s, typ="JOSE")))


@pytest.mark.parametrize("step", PLACES)
def test_step_07_accepts_the_edges_of_its_times(step: int) -> None:
    # The reference time is the stored time, one second after `iat`, or `iat` itself inside steps 10 and 11.
    reference = (NOW + SECOND if step == 7 else NOW) // SECOND
    Delivery().accept(PLACES[step](lambda s: token(s, iat=reference + 5)))
    Delivery().accept(PLACES[step](lambda s: token(s, exp=reference + 1)))
    Delivery().accept(PLACES[step](lambda s: token(s, iat=reference - 1, exp=reference - 1 + 86_400)))


BAD_TOKENS: dict[str, Callable[[Sealer], bytes]] = {
    "empty": lambda s: b"",
    "two parts": lambda s: token(s).rpartition(b".")[0],
    "four parts": lambda s: token(s) + b".",
    "padded": lambda s: raw(s).replace(b".", b"=.", 1),
    "unused bits": lambda s: token(s)[:-1] + bytes([token(s)[-1] + 1]),
    "a space": lambda s: b" " + token(s),
    "a line feed": lambda s: token(s) + b"\n",
    "not base64url": lambda s: token(s).replace(b".", b"+.", 1),
    "not ASCII": lambda s: b"\xff" + token(s),
    "a JOSE header that is not JSON": lambda s: raw(s, header=b"{"),
    "a JOSE header that is an array": lambda s: raw(s, header=b"[]"),
    "a JOSE header that is not UTF-8": lambda s: raw(s, header=b'{"alg":"\xff"}'),
    "claims that are not JSON": lambda s: raw(s, claims=b"{]"),
    "claims that are null": lambda s: raw(s, claims=b"null"),
    "claims twice": lambda s: raw(s, claims=json.dumps({"sub": s.iss.value}).encode() * 2),
    "a repeated claim": lambda s: raw(s, claims=with_claim(s, '"sub":"x"')),
    "a repeated claim, escaped": lambda s: raw(s, claims=with_claim(s, '"s\\u0075b":"x"')),
    "a repeated name deep down": lambda s: raw(s, claims=with_claim(s, '"x":{"y":1,"y":2}')),
    "a repeated alg": lambda s: raw(s, header=b'{"alg":"none","alg":"ES256","kid":"key-1"}'),
    "nested 9 deep": lambda s: raw(s, claims=with_claim(s, '"x":' + "[" * 8 + "]" * 8)),
    "nested 1,500 deep": lambda s: raw(s, claims=with_claim(s, '"x":' + "[" * 750 + "]" * 750)),
    "NaN": lambda s: raw(s, claims=with_claim(s, '"x":NaN')),
    "Infinity": lambda s: raw(s, claims=with_claim(s, '"x":-Infinity')),
    "no alg": lambda s: without(s, header="alg"),
    "alg none": lambda s: headed(s, alg="none"),
    "alg HS256": lambda s: headed(s, alg="HS256"),
    "alg EdDSA": lambda s: headed(s, alg="EdDSA"),
    "alg in lower case": lambda s: headed(s, alg="es256"),
    "alg a number": lambda s: headed(s, alg=256),
    "alg an array": lambda s: headed(s, alg=["ES256"]),
    "no kid": lambda s: without(s, header="kid"),
    "kid a number": lambda s: headed(s, kid=1),
    "kid null": lambda s: headed(s, kid=None),
    "typ of a WIT-SVID": lambda s: headed(s, typ="wit+jwt"),
    "typ in lower case": lambda s: headed(s, typ="jwt"),
    "typ null": lambda s: headed(s, typ=None),
    "typ an array": lambda s: headed(s, typ=["JWT"]),
    "another JOSE header": lambda s: headed(s, crit=[]),
    "a key inside": lambda s: headed(s, jwk=ISSUER.jwk()),
    "a key's address inside": lambda s: headed(s, jku="https://keys.example"),
    "alg of another curve": lambda s: headed(s, alg="ES384"),
    "alg of another family": lambda s: headed(s, alg="RS256"),
    "alg of another family, PS": lambda s: headed(s, alg="PS256"),
    "no aud": lambda s: without(s, claim="aud"),
    "aud of another key": lambda s: token(s, aud=[INVENTORY_KEY.thumbprint]),
    "two audiences": lambda s: token(s, aud=[s.key.public.thumbprint, "other"]),
    "one audience twice": lambda s: token(s, aud=[s.key.public.thumbprint] * 2),
    "an empty audience": lambda s: token(s, aud=[]),
    "a bare thumbprint": lambda s: token(s, aud=s.key.public.thumbprint.rpartition(":")[2]),
    "aud an object": lambda s: token(s, aud={s.key.public.thumbprint: 1}),
    "no sub": lambda s: without(s, claim="sub"),
    "another sub": lambda s: token(s, sub=agent("mallory").value),
    "sub a longer ID": lambda s: token(s, sub=s.iss.value + "/x"),
    "sub an array": lambda s: token(s, sub=[s.iss.value]),
    "no iat": lambda s: without(s, claim="iat"),
    "iat a float": lambda s: token(s, iat=NOW / SECOND),
    "iat text": lambda s: token(s, iat=str(NOW // SECOND)),
    "iat true": lambda s: token(s, iat=True, exp=2),
    "iat negative": lambda s: token(s, iat=-1, exp=2),
    "iat an exponent": lambda s: raw(s, claims=token_claims(s).replace(b'"iat": ', b'"iat": 0e1, "x": ')),
    "no exp": lambda s: without(s, claim="exp"),
    "exp a float": lambda s: token(s, exp=NOW / SECOND + 60),
    "exp null": lambda s: token(s, exp=None),
    "exp false": lambda s: token(s, exp=False),
    "exp beyond 2^53-1": lambda s: token(s, exp=2**53),
    "exp beyond everything": lambda s: token(s, exp=10**1000),
    "exp not after iat": lambda s: token(s, iat=NOW // SECOND + 2, exp=NOW // SECOND + 2),
    "a life over 24 h": lambda s: token(s, iat=NOW // SECOND, exp=NOW // SECOND + 86_401),
    "issued over 5 s after the reference": lambda s: token(s, iat=NOW // SECOND + 7),
    "signed by another key": lambda s: OTHER_ISSUER.token(s.iss, s.key.public),
    "a signature over something else": lambda s: replaced_signature(s, token(s, x=1).rpartition(b".")[2]),
    "no signature": lambda s: token(s).rpartition(b".")[0] + b".",
    "a signature cut short": lambda s: token(s)[: token(s).rindex(b".") + 85],
    "a signature in DER": lambda s: replaced_signature(s, b"MEUCIQ" * 16),
    "a zero before s": lambda s: replaced_signature(s, with_zero(token(s).rpartition(b".")[2])),
    "a signature of zeros": lambda s: replaced_signature(s, b"A" * 86),
}  # fmt: skip


def token_claims(sealer: Sealer) -> bytes:
    """Return the claims of a valid JWT-SVID for `sealer`, as JSON."""
    return urlsafe_b64decode(token(sealer).split(b".")[1] + b"==")


def replaced_signature(sealer: Sealer, signature: bytes) -> bytes:
    """Return a JWT-SVID for `sealer` with `signature`, in base64url, instead of its own."""
    return token(sealer).rpartition(b".")[0] + b"." + signature


def with_zero(signature: bytes) -> bytes:
    """Return an ES256 signature with one octet too many, which stands for the same two numbers."""
    both = urlsafe_b64decode(signature + b"==")
    return base64url(both[:32] + b"\0" + both[32:]).encode()


def with_claim(sealer: Sealer, member: str) -> bytes:
    """Return the claims of a valid JWT-SVID with `member` added as it stands."""
    return token_claims(sealer)[:-1] + b"," + member.encode() + b"}"


@pytest.mark.parametrize("what", BAD_TOKENS)
def test_step_07_refuses_a_token(what: str) -> None:
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(in_message(BAD_TOKENS[what])))


@pytest.mark.parametrize("what", BAD_TOKENS)
def test_step_10_refuses_a_token_of_the_context(what: str) -> None:
    refuses(Code.BAD_CREDENTIAL, 10, lambda: Delivery().accept(in_context(BAD_TOKENS[what])))


@pytest.mark.parametrize("what", BAD_TOKENS)
def test_step_11_refuses_a_token_of_an_ancestor(what: str) -> None:
    refuses(Code.BAD_CREDENTIAL, 11, lambda: Delivery().accept(in_ancestor(BAD_TOKENS[what])))


@pytest.mark.parametrize("kind", [0, 2, 3])
@pytest.mark.parametrize("step", PLACES)
def test_step_07_refuses_another_kind_of_credential(step: int, kind: int) -> None:
    refuses(Code.BAD_CREDENTIAL, step, lambda: Delivery().accept(PLACES[step](token, kind)))


def test_step_07_refuses_integers_beyond_2_53_before_it_looks_for_the_key() -> None:
    beyond = ISSUER.token(
        PLANNER.iss, PLANNER.key.public, header={"kid": "key-2"}, claims={"iat": 2**53, "exp": 2**53 + 1}
    )
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(in_message(lambda _: beyond)))


def test_step_07_refuses_a_token_that_is_not_the_one_of_crd() -> None:
    message = Message(credential=Credential(1, token(PLANNER, x=1)), fields={"crd": PLANNER.crd})
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(message))


@pytest.mark.parametrize("step", PLACES)
def test_step_07_refuses_an_expired_credential(step: int) -> None:
    reference = (NOW + SECOND if step == 7 else NOW) // SECOND
    message = PLACES[step](lambda s: token(s, iat=reference - 60, exp=reference))
    refuses(Code.CREDENTIAL_EXPIRED, step, lambda: Delivery().accept(message))


def test_step_07_judges_a_task_at_its_stored_time() -> None:
    message = in_message(lambda s: token(s, exp=NOW // SECOND + 60))
    Delivery(stored=NOW + MINUTE - 1, now=NOW + 30 * MINUTE).accept(message)
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: Delivery(stored=NOW + MINUTE, now=NOW + 30 * MINUTE).accept(message))


def test_step_07_judges_a_call_at_the_time_of_now() -> None:
    """Not at its `iat`, when its credential may still have counted: nobody has stored it since."""
    fields: dict[str, object] = {
        "t": "call",
        "to": "call.inventory.update",
        "rpl": "_INBOX.planner.1",
        "exp": NOW + MINUTE,
        "end": NOW + MINUTE,
    }
    expiring = with_token(PLANNER, token(PLANNER, exp=NOW // SECOND + 30))
    call = Message(sealer=expiring, fields=fields)

    def again(now: int) -> Delivery:
        return Delivery(core=True, subject="call.inventory.update", now=now)

    again(NOW + 30 * SECOND - 1).accept(call)
    refuses(Code.CREDENTIAL_EXPIRED, 7, lambda: again(NOW + 30 * SECOND).accept(call))
    # A credential may begin after the message was made, at most 5 s after it is judged.
    later = with_token(PLANNER, token(PLANNER, iat=NOW // SECOND + 10))
    late = Message(sealer=later, fields=fields)
    again(NOW + 5 * SECOND).accept(late)
    refuses(Code.BAD_CREDENTIAL, 7, lambda: again(NOW + 5 * SECOND - 1).accept(late))


@pytest.mark.parametrize("step", PLACES)
def test_step_07_refuses_a_key_that_is_not_in_the_bundle(step: int) -> None:
    message = PLACES[step](lambda s: headed(s, kid="key-2"))
    refuses(Code.UNKNOWN_KEY, step, lambda: Delivery().accept(message))
    empty = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, b'{"keys":[]}')]))
    refuses(Code.UNKNOWN_KEY, 7, lambda: Delivery(trust=empty).accept(Message()))


def test_step_07_refuses_a_trust_domain_without_a_bundle() -> None:
    nobody = Trust(bundles=TrustBundles())
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: Delivery(trust=nobody).accept(Message()))
    stranger = FOREIGN.sealer(SpiffeId("spiffe://other.org/agent/planner"))
    message = Message(sealer=stranger, context=None, ancestors=())
    refuses(Code.UNKNOWN_TRUST_DOMAIN, 7, lambda: Delivery().accept(message))
    Delivery(trust=BOTH).accept(message)


@pytest.mark.parametrize("step", PLACES)
def test_step_07_refuses_a_foreign_authority_for_our_trust_domain(step: int) -> None:
    # The bundle of the federated trust domain has a key under that very kid; keys are never pooled.
    message = PLACES[step](lambda s: FOREIGN.token(s.iss, s.key.public))
    refuses(Code.BAD_CREDENTIAL, step, lambda: Delivery(trust=BOTH).accept(message))
    only_there = PLACES[step](lambda s: replace(FOREIGN, kid="theirs").token(s.iss, s.key.public))
    theirs = JwtBundle.parse(FOREIGN.trust_domain, replace(FOREIGN, kid="theirs").jwks())
    pooled = Trust(bundles=TrustBundles([*TRUST.bundles.values(), theirs]))
    refuses(Code.UNKNOWN_KEY, step, lambda: Delivery(trust=pooled).accept(only_there))


@pytest.mark.parametrize("step", PLACES)
def test_step_07_refuses_what_was_issued_before_a_revocation(step: int) -> None:
    message = PLACES[step](token)
    issuer = PLANNER.iss if step == 7 else EDGE_ID
    issued = NOW - MINUTE
    delivery = Delivery(trust=replace(TRUST, revoked_before={issuer: issued}))
    delivery.accept(message)
    # Remembered credentials are judged anew: a revocation acts at the next message.
    revoked = replace(delivery, trust=replace(TRUST, revoked_before={issuer: issued + 1}))
    refuses(Code.REVOKED, min(step, 10), lambda: revoked.accept(message))
    refuses(Code.REVOKED, min(step, 10), lambda: replace(revoked, caches=Delivery().caches).accept(message))


def test_step_07_refuses_an_ancestor_whose_sender_was_revoked() -> None:
    hop = ISSUER.sealer(agent("hop"))
    root = Message(sealer=EDGE, fields={"aud": hop.iss.value, "to": "task.hop.do", "id": message_id(1)}, ancestors=())
    middle = Message(sealer=hop, fields={**ROOT, "id": message_id(3)}, ancestors=(root.ancestor(),))
    message = Message(ancestors=(middle.ancestor(), root.ancestor()))
    delivery = Delivery()
    delivery.accept(message)
    revoked = replace(delivery, trust=replace(TRUST, revoked_before={hop.iss: NOW}))
    refuses(Code.REVOKED, 11, lambda: revoked.accept(message))


def test_step_07_goes_in_the_order_of_section_5() -> None:
    ladder: list[tuple[Code, Message, Trust]] = []
    nobody = Trust(bundles=TrustBundles())
    revoking = replace(TRUST, revoked_before={PLANNER.iss: NOW})
    old = OTHER_ISSUER.token(PLANNER.iss, PLANNER.key.public, iat=NOW - HOUR, exp=NOW)
    ladder.append((Code.BAD_CREDENTIAL, Message(credential=Credential(1, b"x"), fields={"crd": PLANNER.crd}), nobody))
    ladder.append((Code.BAD_CREDENTIAL, in_message(lambda s: headed(s, alg="none")), nobody))
    ladder.append((Code.UNKNOWN_TRUST_DOMAIN, in_message(lambda s: headed(s, kid="key-2")), nobody))
    ladder.append((Code.UNKNOWN_KEY, in_message(lambda s: headed(s, kid="key-2") and without(s, claim="x")), EMPTY))
    ladder.append((Code.CREDENTIAL_EXPIRED, in_message(lambda _: old), revoking))
    ladder.append((Code.REVOKED, in_message(lambda s: OTHER_ISSUER.token(s.iss, s.key.public)), revoking))
    for code, message, trust in ladder:
        refuses(code, 7, partial(Delivery(trust=trust).accept, message))


def by(alg: str, *, says: str | None = None, salt: int | None = None) -> tuple[Message, Delivery]:
    """Return a task whose sender's JWT-SVID is signed with `alg`, and a delivery that trusts the key."""
    claims: dict[str, Json] = json.loads(token_claims(PLANNER))
    message = Message(
        sealer=with_token(PLANNER, sign_as(alg, claims, says=says, salt=salt)), context=None, ancestors=()
    )
    jwks = json.dumps({"keys": [jwk_for(alg)]}).encode()
    return message, Delivery(trust=Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, jwks)])))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_step_07_accepts_a_token_by(alg: str) -> None:
    message, delivery = by(alg)
    delivery.accept(message)


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("says", ALGORITHMS)
def test_step_07_refuses_a_token_that_says_another_alg(alg: str, says: str) -> None:
    message, delivery = by(alg, says=says if says != alg else "none")
    refuses(Code.BAD_CREDENTIAL, 7, lambda: delivery.accept(message))


@pytest.mark.parametrize("alg", ["PS256", "PS384", "PS512"])
def test_step_07_refuses_a_salt_of_another_length(alg: str) -> None:
    for salt in (0, 20, 33):
        message, delivery = by(alg, salt=salt)
        refuses(Code.BAD_CREDENTIAL, 7, partial(delivery.accept, message))


# Step 8, and the same inside steps 10 and 11.


def batch_of_five() -> tuple[Message, list[Proof]]:
    """Return a message that is number 2 of a batch, and all proofs of the batch."""
    leaves = [leaf_hash(bytes([number])) for number in range(5)]
    leaves[2] = leaf_hash(Message().raw())
    return Message(), sign_batch(leaves, MESSAGE_TYPE, PLANNER.key)


def test_step_08_accepts_a_message_of_a_batch() -> None:
    message, proofs = batch_of_five()
    assert Delivery().accept(replace(message, proof=proofs[2])).proof.size == 5


def proof_in(step: int, change: Callable[[Proof, Sealer, str, bytes], Proof]) -> Message:
    """Return a task with the proof changed: its own (8), its context's (10) or its parent's (11)."""
    if step == 8:
        message = Message()
        return replace(message, proof=change(message.prf(), PLANNER, MESSAGE_TYPE, message.raw()))
    if step == 10:
        good = statement()
        changed = change(good.proof, EDGE, CONTEXT_TYPE, good.payload)
        return Message(context=good._replace(proof=changed))
    parent = Message(sealer=EDGE, fields=ROOT, ancestors=())
    ancestor = parent.ancestor()
    return Message(ancestors=(ancestor._replace(proof=change(ancestor.proof, EDGE, MESSAGE_TYPE, ancestor.header)),))


def numbers(proof: Proof) -> tuple[int, int]:
    """Return r and s."""
    return int.from_bytes(proof.signature[:32], "big"), int.from_bytes(proof.signature[32:], "big")


def signed(r: int, s: int, proof: Proof) -> Proof:
    """Return `proof` with another signature."""
    return proof._replace(signature=r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def sign_root(sealer: Sealer, type_: str, root: bytes, size: int) -> bytes:
    """Return the signature over `root` and `size`, whatever they are."""
    return sealer.key.sign(pae(type_, root + size.to_bytes(4, "big")))


BAD_PROOFS: dict[str, Callable[[Proof, Sealer, str, bytes], Proof]] = {
    "r is 0": lambda p, s, t, b: signed(0, numbers(p)[1], p),
    "r is n": lambda p, s, t, b: signed(ORDER, numbers(p)[1], p),
    "s is 0": lambda p, s, t, b: signed(numbers(p)[0], 0, p),
    "s is in the upper half": lambda p, s, t, b: signed(numbers(p)[0], ORDER - numbers(p)[1], p),
    "s is n": lambda p, s, t, b: signed(numbers(p)[0], ORDER, p),
    "one bit flipped": lambda p, s, t, b: p._replace(signature=p.signature[:-1] + bytes([p.signature[-1] ^ 1])),
    "signed by another key": lambda p, s, t, b: sign_batch([leaf_hash(b)], t, signing_key("mallory"))[0],
    "signed as another type": lambda p, s, t, b: sign_batch([leaf_hash(b)], OTHER_TYPE[t], s.key)[0],
    "another leaf": lambda p, s, t, b: sign_batch([leaf_hash(b + b"x")], t, s.key)[0],
    "a leaf without its prefix": lambda p, s, t, b: sign_batch([sha256(b).digest()], t, s.key)[0],
    "another size": lambda p, s, t, b: p._replace(size=2, path=(bytes(32),)),
    "signed for another size": lambda p, s, t, b: p._replace(signature=sign_root(s, t, leaf_hash(b), 2)),
    "another index": lambda p, s, t, b: sign_batch([leaf_hash(b), bytes(32)], t, s.key)[0]._replace(index=1),
    "a node missing": lambda p, s, t, b: sign_batch([leaf_hash(b), bytes(32)], t, s.key)[0]._replace(path=()),
    "a node missing, root right": lambda p, s, t, b: Proof(2, 0, (), sign_root(s, t, leaf_hash(b), 2)),
    "a node left over": lambda p, s, t, b: p._replace(path=(bytes(32),)),
    "a node left over, root right": lambda p, s, t, b: Proof(
        1, 0, (bytes(32),), sign_root(s, t, sha256(b"\x01" + leaf_hash(b) + bytes(32)).digest(), 1)
    ),
    "a node left over on the right edge": lambda p, s, t, b: Proof(
        1, 0, (bytes(32),), sign_root(s, t, sha256(b"\x01" + bytes(32) + leaf_hash(b)).digest(), 1)
    ),
    "another node": lambda p, s, t, b: sign_batch([leaf_hash(b), bytes(32)], t, s.key)[0]._replace(path=(b"x" * 32,)),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_PROOFS)
def test_step_08_refuses_a_proof(what: str) -> None:
    refuses(Code.BAD_SIGNATURE, 8, lambda: Delivery().accept(proof_in(8, BAD_PROOFS[what])))


@pytest.mark.parametrize("what", BAD_PROOFS)
def test_step_10_refuses_a_proof_of_the_context(what: str) -> None:
    refuses(Code.BAD_SIGNATURE, 10, lambda: Delivery().accept(proof_in(10, BAD_PROOFS[what])))


@pytest.mark.parametrize("what", BAD_PROOFS)
def test_step_11_refuses_a_proof_of_an_ancestor(what: str) -> None:
    refuses(Code.BAD_SIGNATURE, 11, lambda: Delivery().accept(proof_in(11, BAD_PROOFS[what])))


@pytest.mark.parametrize("step", [8, 10, 11])
def test_step_08_refuses_a_proof_after_a_good_one(step: int) -> None:
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.BAD_SIGNATURE, step, lambda: delivery.accept(proof_in(step, BAD_PROOFS["one bit flipped"])))
    refuses(Code.BAD_SIGNATURE, step, lambda: delivery.accept(proof_in(step, BAD_PROOFS["another size"])))


def test_step_08_refuses_what_no_wire_can_say() -> None:
    # Proofs of evidence and receipts come from elsewhere; what step 1 says about them is said again here.
    key, leaf = PLANNER.key.public, leaf_hash(b"x")
    [lone] = sign_batch([leaf], MESSAGE_TYPE, PLANNER.key)
    second = sign_batch([bytes(32), leaf], MESSAGE_TYPE, PLANNER.key)[1]
    padded = lone.signature[:32] + b"\0" + lone.signature[32:]
    for proof in (lone._replace(index=1), second._replace(index=-1), lone._replace(signature=padded)):
        refuses(Code.BAD_SIGNATURE, 8, partial(verify_proof, proof, leaf, MESSAGE_TYPE, key, VerifiedRoots()))


def test_step_08_refuses_a_path_to_another_root() -> None:
    verify_path(bytes(32), 1, 0, (), bytes(32))
    refuses(Code.BAD_SIGNATURE, 8, lambda: verify_path(bytes(32), 1, 0, (), b"x" * 32))


# Step 10.


def payload(**changes: Value) -> bytes:
    """Return the valid context payload with entries changed; nil takes one out."""
    fields = decode(statement().payload, text_bytes=2048)
    assert isinstance(fields, dict)
    changed = {key: value for key, value in (fields | changes).items() if value is not None}
    return pack({key: changed[key] for key in sorted(changed)})


def carrying(context: Statement) -> Message:
    """Return a task whose whole chain carries `context`."""
    return Message(
        context=context, ancestors=(Message(sealer=EDGE, fields=ROOT, context=context, ancestors=()).ancestor(),)
    )


def test_step_10_accepts_a_context_with_every_entry() -> None:
    full = payload(
        ten="acme",
        wkl=EDGE_ID.value,
        acr="urn:mace:silver",
        amr=["pwd", "otp"],
        aut=NOW - HOUR,
        req={"ip": "192.0.2.1"},
    )
    context = Delivery().accept(carrying(context_statement(full))).context
    assert context is not None
    assert (context.ten, context.wkl, context.amr) == ("acme", EDGE_ID, ("pwd", "otp"))
    assert context.req == {"ip": "192.0.2.1"}
    assert context.clm["groups"] == ("a", "b")


@pytest.mark.parametrize("typ", [None, "client", "workload"])
def test_step_10_accepts_a_subject_of_a_partner(typ: str | None) -> None:
    theirs = payload(sub="mia@partner.example", dom="partner.example", typ=typ)
    context = Delivery().accept(carrying(context_statement(theirs))).context
    assert context is not None
    assert (context.sub, str(context.dom), context.typ) == ("mia@partner.example", "partner.example", typ)


@pytest.mark.parametrize(
    ("sub", "dom"),
    [
        ("mia", "partner.example"),
        ("mia@other.example", "partner.example"),
        ("mia@my.partner.example", "partner.example"),
        ("mia@partner.example.org", "partner.example"),
        ("@partner.example", "partner.example"),
        ("partner.example", "partner.example"),
        ("mia@Partner.example", "Partner.example"),
    ],
)
def test_step_10_refuses_a_subject_that_is_not_called_by_its_domain(sub: str, dom: str) -> None:
    bad = context_statement(payload(sub=sub, dom=dom))
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(carrying(bad)))


def test_step_10_accepts_a_message_without_a_context() -> None:
    assert Delivery().accept(Message(context=None, ancestors=())).context is None


def test_step_10_refuses_a_context_without_ctx_and_ctx_without_a_context() -> None:
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(Message(fields={"ctx": None})))
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(Message(elements={5: None})))


def test_step_10_refuses_a_context_on_an_event() -> None:
    entries: dict[str, object] = {"t": "event", "to": "event.planner.x", "aud": None, "end": None, "ctx": None}
    event = Message(fields=entries, ancestors=())
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery(subject="event.planner.x").accept(event))


def test_step_10_refuses_another_context_than_was_signed() -> None:
    other = mint_context(context_draft()._replace(sub="u-1002"), EDGE)
    message = Message(elements={5: other})
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(message))
    # Also where the one that was signed is remembered.
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.BAD_CONTEXT, 10, lambda: delivery.accept(message))


def test_step_10_refuses_a_context_for_another_trust_domain() -> None:
    other = mint_context(context_draft()._replace(aud=TrustDomain("other.org")), EDGE)
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(carrying(other)))


def test_step_10_refuses_an_issuer_that_may_not_mint() -> None:
    by_planner = mint_context(context_draft(), PLANNER)
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: Delivery().accept(carrying(by_planner)))
    nobody = replace(Delivery().profile, minters=frozenset())
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.CONTEXT_ISSUER_REFUSED, 10, lambda: replace(delivery, profile=nobody).accept(Message()))


def test_step_10_refuses_a_credential_of_the_context_that_is_not_its_crd() -> None:
    moved = statement()._replace(credential=Credential(1, token(EDGE, x=1)))
    refuses(Code.BAD_CREDENTIAL, 10, lambda: Delivery().accept(carrying(moved)))


def context_keys() -> list[str]:
    """Return the keys that every context has."""
    fields = decode(statement().payload, text_bytes=2048)
    assert isinstance(fields, dict)
    return list(fields)


NO_TEXT: list[Value] = ["x" * 257, b"x", 1, ["x"]]
NO_TEXTS: list[Value] = ["x", {}, [1], ["x" * 257], [b"x"], [["x"]], 1]
BAD_ENTRIES: list[tuple[str, Value]] = [
    *((key, None) for key in context_keys()),
    ("new", 1), ("", ""),
    ("typ", "x"), ("typ", "user"), ("typ", ""), ("typ", 1), ("typ", b"client"),
    ("dom", "partner.example"), ("dom", ""), ("dom", 1), ("dom", "a" * 256),
    ("v", 0), ("v", 2), ("v", True), ("v", "1"),
    ("txn", bytes(15)), ("txn", bytes(17)), ("txn", "x" * 16),
    ("iss", "edge"), ("iss", "spiffe://example.org"), ("iss", "spiffe://Example.org/edge"), ("iss", b"x"), ("iss", ""),
    ("iss", "spiffe://example.org/" + "a" * 2028),
    ("aud", "Example.org"), ("aud", ""), ("aud", 1), ("aud", "spiffe://example.org"), ("aud", "a" * 256),
    ("iat", -1), ("iat", "0"), ("iat", True), ("iat", NOW + 15 * MINUTE),
    ("exp", -1), ("exp", b""), ("exp", NOW), ("exp", NOW + 2 * HOUR + 1),
    ("end", -1), ("end", "x"), ("end", NOW + 15 * MINUTE - 1), ("end", NOW + DAY + 1), ("end", False),
    ("key", bytes(64)), ("key", bytes(63)), ("key", "x" * 64), ("key", PLANNER.key.public.raw + b"\0"),
    ("crd", bytes(31)), ("crd", bytes(33)), ("crd", "x" * 32),
    *((key, bad) for key in ("sub", "idp", "sid", "cid", "ten", "acr") for bad in NO_TEXT),
    *((key, bad) for key in ("scp", "amr") for bad in NO_TEXTS),
    ("clm", []), ("clm", "x"), ("clm", {"x": b"x"}), ("clm", {"x": {}}), ("clm", {"x": [1]}), ("clm", {"x": "x" * 257}),
    ("clm", {"x" * 257: 1}), ("scp", ["\x00"]),
    ("clm", {"x": 2**53}), ("clm", {"x": "\x00"}), ("clm", {"\x00": "x"}), ("clm", {"x": -(2**53)}),
    ("clm", {"x": ["y" * 257]}), ("clm", {"x": [["y"]]}),
    ("wkl", "planner"), ("wkl", b"x"), ("wkl", ""), ("wkl", "spiffe://example.org/" + "a" * 2028),
    ("aut", -1), ("aut", "x"), ("aut", True),
    ("req", []), ("req", {"x": 1}), ("req", {"x": b"x"}), ("req", {"x": ["y"]}), ("req", {"x" * 257: "y"}),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD_ENTRIES, ids=lambda case: f"{case[0]}={case[1]!r:.24}")
def test_step_10_refuses_a_misshapen_entry(case: tuple[str, Value]) -> None:
    bad = context_statement(payload(**{case[0]: case[1]}))
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(carrying(bad)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="not msgpack"),
        pytest.param(pack([]), id="an array"),
        pytest.param(pack({}), id="an empty map"),
        pytest.param(statement().payload + b"\xc0", id="something after it"),
        pytest.param(b"\xde\x00\x0f" + statement().payload[1:], id="a map not in its shortest form"),
        pytest.param(pack(dict(reversed(decode(statement().payload, text_bytes=2048).items()))), id="another order"),  # type: ignore[union-attr]
        pytest.param(pack({"acr": None, **decode(statement().payload, text_bytes=2048)}), id="nil"),  # type: ignore[dict-item]
        pytest.param(payload(sub="Z").replace(b"\xa3sub\xa1Z", b"\xa3sub\xa1\x00"), id="a control character"),
        pytest.param(payload(scp=["x"]).replace(b"\xa3scp\x91", b"\xa3scp\xdc\x00\x01"), id="longer than needed"),
        pytest.param(pack({"aut": 2**53, **decode(statement().payload, text_bytes=2048)}), id="too large"),  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_step_10_refuses_a_misshapen_payload(data: bytes) -> None:
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(carrying(context_statement(data))))


def test_step_10_refuses_more_than_32_scopes() -> None:
    Delivery().accept(carrying(context_statement(payload(scp=[str(n) for n in range(32)]))))
    many = context_statement(payload(scp=[str(n) for n in range(33)]))
    refuses(Code.BAD_CONTEXT, 10, lambda: Delivery().accept(carrying(many)))


def test_step_10_accepts_the_edges_of_its_times() -> None:
    draft = context_draft()._replace(iat=NOW, exp=NOW + HOUR, end=NOW + HOUR)
    assert Delivery().accept(carrying(mint_context(draft, EDGE))).context is not None
    longest = mint_context(draft._replace(exp=NOW + DAY, end=NOW + DAY), EDGE)
    assert taking(FORMAT_LIFETIMES).accept(carrying(longest)).context is not None


def taking(lifetimes: Lifetimes, **given: Any) -> Delivery:
    """Return a delivery to a reader that is set to `lifetimes`."""
    return Delivery(profile=replace(PROFILE, lifetimes=lifetimes), **given)


def test_step_10_accepts_and_refuses_by_the_life_that_the_reader_lets_a_context_have() -> None:
    draft = context_draft()._replace(exp=NOW + HOUR, end=NOW + 8 * HOUR)
    assert Delivery().accept(carrying(mint_context(draft, EDGE))).context is not None
    for late in (draft._replace(exp=NOW + HOUR + 1), draft._replace(end=NOW + 8 * HOUR + 1)):
        refuses(Code.BAD_CONTEXT, 10, lambda late=late: Delivery().accept(carrying(mint_context(late, EDGE))))  # type: ignore[misc]
    start, life = Lifetimes(context_start=2 * HOUR, context_life=DAY), Lifetimes(context_life=8 * HOUR - 1)
    longer = mint_context(draft._replace(exp=NOW + 2 * HOUR, end=NOW + DAY), EDGE)
    assert taking(start).accept(carrying(longer)).context is not None
    refuses(Code.BAD_CONTEXT, 10, lambda: taking(life).accept(carrying(mint_context(draft, EDGE))))


# Step 11.


def chain_of(*names: str, **last: object) -> list[Message]:
    """Return the messages of a chain that starts at the edge and goes through `names` to the inventory, root first."""
    messages: list[Message] = []
    no_ancestors: tuple[Ancestor, ...] = ()
    sender, ancestors = EDGE, no_ancestors
    for place, name in enumerate((*names, "inventory")):
        message = Message(
            sealer=sender,
            fields={"aud": agent(name).value, "to": f"task.{name}.update", "id": message_id(20 + place)},
            ancestors=ancestors,
        )
        messages.append(message)
        sender, ancestors = ISSUER.sealer(agent(name)), (message.ancestor(), *ancestors)
    messages[-1].fields = {**messages[-1].fields, "id": message_id(2), **last}
    return messages


def test_step_11_accepts_a_root_and_a_chain_of_eight_ancestors() -> None:
    assert Delivery().accept(chain_of()[0]).chain[0].iss == EDGE_ID
    names = [f"hop-{number}" for number in range(8)]
    accepted = Delivery().accept(chain_of(*names)[-1])
    assert [link.iss for link in accepted.chain] == [EDGE_ID, *map(agent, names)]
    assert len(accepted.ancestors) == 9


def test_step_11_accepts_a_call_as_an_ancestor() -> None:
    call = {"t": "call", "to": "call.planner.plan", "rpl": "_INBOX.x.1", "exp": NOW + MINUTE}
    parent = Message(sealer=EDGE, fields=ROOT | call, ancestors=())
    assert Delivery().accept(Message(ancestors=(parent.ancestor(),))).chain[0].kind == "call"


def parented(child: Mapping[str, object] = MappingProxyType({}), **parent: object) -> Message:
    """Return a task with `child` entries changed, and its parent's too."""
    root = Message(sealer=EDGE, fields=ROOT | parent, ancestors=())
    return Message(fields=child, ancestors=(root.ancestor(),))


def test_step_11_refuses_par_without_ancestors_and_ancestors_without_par() -> None:
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(elements={6: []})))
    refuses(
        Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(fields={"par": bytes(32)}, context=None, ancestors=()))
    )
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(fields={"par": None})))


def test_step_11_refuses_a_last_link_that_names_another() -> None:
    message = chain_of("planner", "hop")[-1]
    short = replace(message, elements={6: message.ancestors[:1]})
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(short))


def test_step_11_refuses_a_link_after_a_root() -> None:
    message = Message()
    longer = replace(message, elements={6: [*message.ancestors, root_task().ancestor]})
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(longer))


def test_step_11_refuses_another_parent_than_was_signed() -> None:
    other = Message(sealer=EDGE, fields={**ROOT, "idm": "other"}, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(elements={6: [other]})))
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.BAD_CHAIN, 11, lambda: delivery.accept(Message(elements={6: [other]})))


def test_step_11_refuses_ancestors_in_another_order() -> None:
    message = chain_of("hop-1", "hop-2")[-1]
    swapped = replace(message, elements={6: message.ancestors[::-1]})
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(swapped))


@pytest.mark.parametrize(
    "entries",
    [
        {"t": "event", "to": "event.x.y", "end": None, "ctx": None},
        {"t": "reply", "re": bytes(32), "end": None, "exp": NOW + MINUTE, "ctx": None},
        {"t": "status", "re": bytes(32), "seq": 0, "end": None, "ctx": None},
        {"t": "record", "aud": None, "end": None, "ctx": None},
    ],
)
def test_step_11_refuses_an_ancestor_that_is_neither_task_nor_call(entries: dict[str, object]) -> None:
    parent = Message(sealer=EDGE, fields=ROOT | entries, context=None, ancestors=())
    message = Message(context=None, ancestors=(parent.ancestor(),))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(message))


@pytest.mark.parametrize(
    "entries",
    [{"typ": None}, {"seq": 0}, {"key": bytes(64)}, {"iss": "edge"}, {"exp": NOW}, {"end": NOW + DAY + 1}, {"t": "x"}],
)
def test_step_11_refuses_an_ancestor_that_fails_step_2(entries: dict[str, object]) -> None:
    refuses(Code.MALFORMED, 11, lambda: Delivery().accept(parented({}, **entries)))


def test_step_11_refuses_a_sender_that_the_parent_was_not_for() -> None:
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(parented(aud=agent("mallory").value)))


def test_step_11_accepts_and_refuses_by_the_edges_of_the_parents_time() -> None:
    later: dict[str, object] = {"exp": NOW + 2 * HOUR, "end": NOW + 2 * HOUR}
    Delivery().accept(parented({}, iat=NOW + 5 * SECOND, **later))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(parented({}, iat=NOW + 5 * SECOND + 1, **later)))


def test_step_11_refuses_a_child_made_at_its_parents_end() -> None:
    child = {"iat": NOW + MINUTE, "exp": NOW + HOUR, "end": NOW + HOUR}
    delivery = Delivery(stored=NOW + MINUTE, now=NOW + MINUTE)
    delivery.accept(parented(child, exp=NOW + 1, end=NOW + HOUR))
    refuses(Code.BAD_CHAIN, 11, lambda: delivery.accept(parented(child, exp=NOW + 1, end=NOW + MINUTE)))


def test_step_11_refuses_a_child_that_ends_after_its_parent() -> None:
    Delivery().accept(parented({"end": NOW + HOUR}, end=NOW + HOUR))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(parented({"end": NOW + HOUR + 1}, end=NOW + HOUR)))


def test_step_11_refuses_a_link_without_the_context_of_the_others() -> None:
    bare = Message(sealer=EDGE, fields=ROOT, context=None, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(ancestors=(bare,))))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(context=None)))


def test_step_11_refuses_a_link_with_another_context() -> None:
    other = mint_context(context_draft()._replace(sid="s-2"), EDGE)
    parent = Message(sealer=EDGE, fields=ROOT, context=other, ancestors=()).ancestor()
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(Message(ancestors=(parent,))))


def test_step_11_accepts_a_chain_without_a_context() -> None:
    parent = Message(sealer=EDGE, fields=ROOT, context=None, ancestors=()).ancestor()
    assert Delivery().accept(Message(context=None, ancestors=(parent,))).context is None


def started_by(sealer: Sealer, draft: ContextDraft, **entries: object) -> Message:
    """Return a root task for the inventory, by `sealer`, with a context of `draft`."""
    return Message(sealer=sealer, fields=entries, context=mint_context(draft, EDGE), ancestors=())


def test_step_11_accepts_a_root_of_the_workload_that_the_context_was_minted_for() -> None:
    Delivery().accept(started_by(PLANNER, context_draft()._replace(wkl=PLANNER.iss)))
    Delivery().accept(started_by(EDGE, context_draft()._replace(wkl=EDGE_ID)))


def test_step_11_refuses_a_root_of_another_workload() -> None:
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(PLANNER, context_draft())))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(EDGE, context_draft()._replace(wkl=PLANNER.iss))))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(PLANNER, context_draft()._replace(wkl=INVENTORY))))


def test_step_11_accepts_and_refuses_by_the_start_of_the_context() -> None:
    # The context's clock may be ahead by 5 s.
    draft = context_draft()._replace(iat=NOW + 5 * SECOND)
    Delivery().accept(started_by(EDGE, draft))
    late = draft._replace(iat=NOW + 5 * SECOND + 1)
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(EDGE, late)))


def test_step_11_refuses_a_chain_that_starts_at_the_contexts_exp() -> None:
    Delivery().accept(started_by(EDGE, context_draft()._replace(iat=NOW - MINUTE, exp=NOW + 1)))
    spent = context_draft()._replace(iat=NOW - MINUTE, exp=NOW)
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(EDGE, spent)))


def test_step_11_refuses_a_chain_that_ends_after_the_context() -> None:
    Delivery().accept(started_by(EDGE, context_draft()._replace(end=NOW + HOUR)))
    brief = context_draft()._replace(end=NOW + HOUR - 1)
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(started_by(EDGE, brief)))


def test_step_11_judges_the_root_and_not_the_message() -> None:
    # The message comes long after the context's `exp`, from a workload that it was not minted for.
    message = Message(fields={"iat": NOW + 30 * MINUTE, "exp": NOW + HOUR, "end": NOW + HOUR})
    accepted = Delivery(stored=NOW + 30 * MINUTE, now=NOW + 30 * MINUTE).accept(message)
    assert accepted.context is not None
    assert accepted.header.iat > accepted.context.exp


def test_step_11_refuses_an_ancestor_with_another_credential_than_was_signed() -> None:
    ancestor = root_task().ancestor
    moved = ancestor._replace(credential=Credential(1, token(EDGE, x=1)))
    refuses(Code.BAD_CREDENTIAL, 11, lambda: Delivery().accept(Message(elements={6: [moved]})))
    delivery = Delivery()
    delivery.accept(Message())
    refuses(Code.BAD_CREDENTIAL, 11, lambda: delivery.accept(Message(elements={6: [moved]})))


def test_step_11_refuses_a_context_that_somebody_outside_the_chain_uses() -> None:
    # The inventory's neighbour saw the planner's message; it can show the chain and not continue it.
    thief = Message(sealer=ISSUER.sealer(agent("mallory")))
    refuses(Code.BAD_CHAIN, 11, lambda: Delivery().accept(thief))


def test_step_11_refuses_a_chain_that_has_ended_at_the_reference_time() -> None:
    # Step 5 is stricter where it applies. In the archive, it does not.
    message, ancestors = Delivery().accept(Message()), (root_task().ancestor,)

    def read(reference: int) -> object:
        return verify_chain(
            message.header,
            ancestors,
            message.context,
            reference=reference,
            lifetimes=DEFAULT_LIFETIMES,
            trust=TRUST,
            caches=Delivery().caches,
        )

    read(NOW + HOUR - 1)
    refuses(Code.BAD_CHAIN, 11, lambda: read(NOW + HOUR))


def test_step_11_accepts_and_refuses_by_the_life_that_the_reader_lets_a_chain_have() -> None:
    hour = Lifetimes(chain_life=HOUR)
    for lifetimes, end in ((hour, NOW + HOUR), (FORMAT_LIFETIMES, NOW + DAY)):
        own = Message(context=None, ancestors=(), fields={"end": end})
        root = Message(sealer=EDGE, fields=ROOT | {"end": end}, context=None, ancestors=())
        taking(lifetimes).accept(own)
        taking(lifetimes).accept(Message(context=None, ancestors=(root.ancestor(),)))
    own = Message(context=None, ancestors=(), fields={"end": NOW + HOUR + 1})
    root = Message(sealer=EDGE, fields=ROOT | {"end": NOW + HOUR + 1}, context=None, ancestors=())
    refuses(Code.BAD_CHAIN, 11, lambda: taking(hour).accept(own))
    refuses(Code.BAD_CHAIN, 11, lambda: taking(hour).accept(Message(context=None, ancestors=(root.ancestor(),))))
    # With a user it is the context that says how long.
    taking(hour).accept(Message(fields={"end": NOW + 2 * HOUR}))


def test_step_11_refuses_a_chain_too_long_after_an_ancestors_credential() -> None:
    edge = ISSUER.sealer(EDGE_ID, exp=NOW + MINUTE)
    hop = ISSUER.sealer(agent("hop"), exp=NOW + 2 * MINUTE)
    entries: dict[str, object] = {"end": NOW + HOUR, "exp": NOW + HOUR}
    first = Message(
        sealer=edge, fields=ROOT | entries | {"aud": hop.iss.value, "to": "task.hop.x"}, ancestors=()
    ).ancestor()
    second = Message(sealer=hop, fields=ROOT | entries, ancestors=(first,)).ancestor()
    message = Message(fields=entries | {"iat": NOW + 5 * MINUTE}, ancestors=(second, first))

    def read(reference: int, after: int | None, sent: Message = message) -> None:
        taking(Lifetimes(chain_after=after), stored=reference, now=reference).accept(sent)

    read(NOW + 6 * MINUTE, None)
    read(NOW + 6 * MINUTE - 1, 5 * MINUTE)
    refuses(Code.BAD_CHAIN, 11, lambda: read(NOW + 6 * MINUTE, 5 * MINUTE))
    # Every ancestor is asked, and not only the root.
    later = Message(sealer=ISSUER.sealer(EDGE_ID, exp=NOW + HOUR), fields=ROOT | entries, ancestors=()).ancestor()
    lasting = Message(fields=entries, ancestors=(later,))
    read(NOW + SECOND, 0, lasting)
    brief = Message(sealer=edge, fields=ROOT | entries, ancestors=()).ancestor()
    soon = Message(fields=entries | {"iat": NOW + MINUTE}, ancestors=(brief,))
    read(NOW + MINUTE - 1, 0, soon)
    refuses(Code.BAD_CHAIN, 11, lambda: read(NOW + MINUTE, 0, soon))
    first = Message(
        sealer=ISSUER.sealer(EDGE_ID, exp=NOW + HOUR),
        fields=ROOT | entries | {"aud": hop.iss.value, "to": "task.hop.x"},
        ancestors=(),
    ).ancestor()
    second = Message(sealer=hop, fields=ROOT | entries, ancestors=(first,)).ancestor()
    between = Message(fields=entries | {"iat": NOW + 5 * MINUTE}, ancestors=(second, first))
    read(NOW + 7 * MINUTE - 1, 5 * MINUTE, replace(between, fields=entries | {"iat": NOW + 6 * MINUTE}))
    refuses(
        Code.BAD_CHAIN,
        11,
        lambda: read(NOW + 7 * MINUTE, 5 * MINUTE, replace(between, fields=entries | {"iat": NOW + 6 * MINUTE})),
    )


def test_step_11_refuses_over_eight_ancestors() -> None:
    # Step 1 refuses this before, where there is a wire. In the archive, evidence is found by hash.
    message = chain_of(*[f"hop-{number}" for number in range(9)])[-1]
    header = parse_header(message.raw())
    context = Delivery().accept(Message()).context

    def read() -> object:
        return verify_chain(
            header,
            message.ancestors,
            context,
            reference=NOW,
            lifetimes=DEFAULT_LIFETIMES,
            trust=TRUST,
            caches=Delivery().caches,
        )

    refuses(Code.CHAIN_TOO_LONG, 11, read)
