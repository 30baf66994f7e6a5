"""Refusals of the live profile by user context and chain: steps 10 and 11."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from vectors.cases import LIFETIMES, Case, live
from vectors.issuing import BROKER, EDGE, HOUR, MINUTE, NOW, PLANNER, PRICING, SECOND, party, token
from vectors.refused_live import event
from vectors.world import Message, context, context_entries, message_id

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import MESSAGE_TYPE

__all__ = ["cases", "parent"]


def cases() -> list[Case]:
    """Return the cases."""
    return [*_contexts(), *_chains()]


def _contexts() -> list[Case]:
    edge = party(EDGE)
    bad = ("bad_context", 10)

    def user(statement: Statement | None) -> Message:
        return Message(sender=edge, context=statement)

    entries = context_entries(edge)
    payloads: dict[str, bytes] = {
        "nothing": b"",
        "no map": pack([]),
        "something after it": pack(entries) + b"\x00",
        "keys out of order": pack(dict(reversed(entries.items()))),
    }
    changes: dict[str, dict[str, object]] = {f"without {key}": {key: None} for key in entries}
    changes |= {
        "an unknown key": {"abc": 1},
        "version 2": {"v": 2},
        "version true": {"v": True},
        "txn of 15 bytes": {"txn": bytes(15)},
        "iss that is no SPIFFE ID": {"iss": "edge"},
        "aud that is no trust domain": {"aud": "Example.org"},
        "key off the curve": {"key": bytes(64)},
        "crd of 31 bytes": {"crd": bytes(31)},
        "sub that is bytes": {"sub": b"u"},
        "sub of 257 bytes": {"sub": "u" * 257},
        "sub with a line feed": {"sub": "u\n"},
        "scp that is text": {"scp": "inventory"},
        "scp of 33": {"scp": ["a"] * 33},
        "clm with bytes in it": {"clm": {"a": b""}},
        "clm with a float in it": {"clm": {"a": 0.5}},
        "clm with a map in it": {"clm": {"a": {}}},
        "clm with nil in it": {"clm": {"a": None}},
        "clm with -2^53": {"clm": {"a": -(2**53)}},
        "clm that is an array": {"clm": []},
        "req with an integer in it": {"req": {"ip": 1}},
        "wkl that is no SPIFFE ID": {"wkl": "planner"},
        "aut below 0": {"aut": -1},
        "amr that is text": {"amr": "pwd"},
        "ten that is an integer": {"ten": 1},
        "typ of a user": {"typ": "user"},
        "typ that is bytes": {"typ": b"client"},
        "dom that is no trust domain": {"sub": "u@Partner.example", "dom": "Partner.example"},
        "dom that is empty": {"sub": "u@", "dom": ""},
        "dom that is not that of sub": {"sub": "u@other.example", "dom": "partner.example"},
        "dom of a longer one": {"sub": "u@other.partner.example", "dom": "partner.example"},
        "dom without anybody of it": {"sub": "@partner.example", "dom": "partner.example"},
        "exp at iat": {"exp": NOW},
        "end before exp": {"end": NOW + 15 * MINUTE - 1},
        "end over 24 h after iat": {"end": NOW + 24 * HOUR + 1},
        "for another trust domain": {"aud": "partner.example"},
        "exp over 1 h after iat, for a reader of 1 h": {"exp": NOW + HOUR + 1},
        "end over 8 h after iat, for a reader of 8 h": {"end": NOW + 8 * HOUR + 1},
    }  # fmt: skip
    thief = party(EDGE, "thief")
    good, other = context(), context(sub="u-2002").proof
    late = token(EDGE, edge.key.public, claims={"exp": NOW // SECOND})
    unknown = token(EDGE, edge.key.public, header={"kid": "es999"})
    return [
        *(live(f"context: {name}", user(context(payload=payload)), bad) for name, payload in payloads.items()),
        *(live(f"context: {name}", user(context(payload=pack(context_entries(edge, **one)))), bad)
          for name, one in changes.items()),
        live("ctx without a context", replace(user(good), elements={5: None}), bad),
        live("a context without ctx", replace(user(None), elements={5: good}), bad),
        live("another context than was signed", replace(user(good), elements={5: context(sub="u-2002")}), bad),
        live("context: who may not mint", user(context(party(PRICING))), ("context_issuer_refused", 10)),
        live("context: nobody may mint", user(good), ("context_issuer_refused", 10), minters=[]),
        live("context: another key's signature", user(context(thief, payload=good.payload)), ("bad_credential", 10)),
        live("context: signed as a message", user(context(payload_type=MESSAGE_TYPE)), ("bad_signature", 10)),
        live("context: another signature", user(good._replace(proof=other)), ("bad_signature", 10)),
        live("context: expired credential", user(context(credential=Credential(1, late))), ("credential_expired", 10)),
        live("context: unknown key", user(context(credential=Credential(1, unknown))), ("unknown_key", 10)),
        live("context: credential of kind 2", user(context(credential=Credential(2, late))), ("bad_credential", 10)),
        live("context: revoked", Message(sender=party(PLANNER), context=context(wkl=PLANNER)), ("revoked", 10),
             revoked_before={EDGE: NOW}),
        live("context: exp over 1 min after iat, for a reader of 1 min", user(good), bad,
             lifetimes={**LIFETIMES, "context_start": MINUTE}),
    ]  # fmt: skip


def parent(statement: Statement | None = None, **fields: object) -> Message:
    """Return the edge's task for the planner, a root."""
    own: dict[str, object] = {"aud": PLANNER, "to": "task.planner.plan", "id": message_id(1), "end": NOW + 2 * HOUR}
    return Message(sender=party(EDGE), context=statement, fields=own | fields)


def _chains() -> list[Case]:
    bad = ("bad_chain", 11)
    user, other = context(), context(sub="u-2002")
    root, with_user = parent(), parent(user)
    good = root.ancestor()

    def child(*above: Message, statement: Statement | None = None, **fields: object) -> Message:
        return Message(context=statement, ancestors=tuple(one.ancestor() for one in above), fields=fields)

    middle = Message(fields={"aud": PLANNER, "to": "task.planner.step", "id": message_id(5)}, ancestors=(good,))
    event_before = event(party(EDGE), aud=PLANNER)
    late = token(EDGE, party(EDGE).key.public, claims={"exp": NOW // SECOND})
    # Good at the ancestor's `iat`, and over just before the message is stored.
    soon = token(EDGE, party(EDGE).key.public, claims={"exp": NOW // SECOND + 1})
    ahead, past, brief = (
        context(iat=NOW + 5 * SECOND + 1),
        context(iat=NOW - 30 * SECOND, exp=NOW),
        context(end=NOW + HOUR),
    )
    broker = Message(sender=party(BROKER), fields={"aud": PLANNER, "to": "task.planner.plan", "id": message_id(1)})
    nonsense = sha256(b"nonsense").digest()

    def bent(number: int, message: Message, *elements: Ancestor) -> Message:
        return replace(message, elements={number: elements})

    return [
        live("par without ancestors", bent(6, child(root)), bad),
        live("ancestors without par", bent(6, child(), good), bad),
        live("another parent than was signed", bent(6, child(root), parent(typ="text/plain").ancestor()), bad),
        live("an ancestor after the root", bent(6, child(root), good, good), bad),
        live("the root left out", bent(6, child(middle, root), middle.ancestor()), bad),
        live("ancestors in another order", bent(6, child(middle, root), good, middle.ancestor()), bad),
        live("a parent that was for another", child(parent(aud=PRICING, to="task.pricing.plan")), bad),
        live("a parent that is an event", child(event_before), bad),
        live("made over 5 s before its parent", child(parent(iat=NOW + 5 * SECOND + 1)), bad),
        live("made at its parent's end", child(parent(iat=NOW - HOUR, exp=NOW, end=NOW)), bad),
        live("ends after its parent", child(parent(end=NOW + HOUR), end=NOW + HOUR + 1), bad),
        live("without its parent's user", child(with_user), bad),
        live("with a user that its parent lacks", child(root, statement=user), bad),
        live("with another user than its parent", child(with_user, statement=other), bad),
        live("a user without a chain to the edge", child(statement=user), bad),
        live("a context for another workload", child(statement=context(wkl=PRICING)), bad),
        live("the edge's own root, with a context for a workload", child(parent(context(wkl=PLANNER)),
             statement=context(wkl=PLANNER)), bad),
        live("a root from over 5 s before its context", child(parent(ahead), statement=ahead), bad),
        live("a root at its context's exp", child(parent(past), statement=past), bad),
        live("a root that ends after its context", child(parent(brief), statement=brief), bad),
        live("an ancestor that is no header", bent(6, child(par=nonsense), good._replace(header=b"nonsense")),
             ("malformed", 11)),
        live("an ancestor whose header is not of its kind", child(parent(seq=0)), ("malformed", 11)),
        live("an ancestor under another signature", bent(6, child(root), good._replace(proof=with_user.prf())),
             ("bad_signature", 11)),
        live("an ancestor with another's credential",
             bent(6, child(root), good._replace(credential=party(PLANNER).credential)), ("bad_credential", 11)),
        live("an ancestor with an expired credential", child(replace(root, credential=Credential(1, late))),
             ("credential_expired", 11)),
        live("an ancestor who was revoked", child(root), ("revoked", 11), revoked_before={EDGE: NOW}),
        live("an ancestor of another trust domain", child(broker), ("unknown_trust_domain", 11),
             bundles="without partner"),
        live("a root that ends over 1 h after it was made, for a reader of 1 h", child(), bad,
             lifetimes={**LIFETIMES, "chain_life": HOUR - 1}),
        live("an ancestor that ends over 1 h after it was made, for a reader of 1 h", child(root), bad,
             lifetimes={**LIFETIMES, "chain_life": HOUR}),
        live("a chain at a reader's time after its ancestor's credential",
             child(replace(root, credential=Credential(1, soon))), bad, lifetimes={**LIFETIMES, "chain_after": 0}),
        live("an ancestor by a key that nobody knows", child(_by_unknown_key()), ("unknown_key", 11)),
    ]  # fmt: skip


def _by_unknown_key() -> Message:
    unknown = token(EDGE, party(EDGE).key.public, header={"kid": "es999"})
    return replace(parent(), credential=Credential(1, unknown))
