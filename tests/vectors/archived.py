"""The archive profile: audit messages of every kind of record, and what was decided, proved again from evidence."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from vectors import recorded
from vectors.cases import Case, archive, decided
from vectors.issuing import EDGE, HOUR, INVENTORY, MINUTE, NOW, PLANNER, SECOND, Json, party, token
from vectors.refused_live import call
from vectors.refused_trust import parent
from vectors.world import BODY, Message, batch, context, message_id

from sealbus.envelopes.encoding.codec import encode, pack
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential, Proof

__all__ = ["accepted", "refused"]

_FORGED = Proof(1, 0, (), b"\x01" * 64)


def accepted() -> list[Case]:
    """Return audit messages, and decided messages inside them."""
    plain, user = Message(), context()
    above = parent(user)
    child = Message(context=user, ancestors=(above.ancestor(),))
    day = context(exp=NOW + 24 * HOUR, end=NOW + 24 * HOUR)
    day_above = parent(day)
    day_child = Message(context=day, ancestors=(day_above.ancestor(),))
    first, second = batch(plain, Message(fields={"id": message_id(3)}))
    core = call(id=message_id(4))
    kinds = [(kind, item) for kind, items in recorded.records(plain).items() for item in items]
    alone = [archive(f"a record: {kind} {number}", recorded.audit([], [item]), [(kind, item)])
             for kind, items in recorded.records(plain).items() for number, item in enumerate(items)]  # fmt: skip
    note = recorded.records(plain)["checkpoint"][0]
    guard = sha256(b"decision" + INVENTORY.encode() + core.digest()).digest()[:16]
    batched, _ = batch(recorded.audit([], [note]), recorded.audit([], [note], id=message_id(10)))
    full, opened = recorded.evidence(child, above), recorded.core(core)
    late, both = recorded.core(core, opn=NOW + 8 * SECOND), [recorded.decision(first), recorded.decision(second)]
    told = Message(fields={"id": message_id(5), "to": "control.inventory.cancel", "re": plain.digest()})
    cancel, begun = recorded.decision(told, act="inventory._cancel"), recorded.decision(plain)
    ended = recorded.record_map("outcome", dec=leaf_hash(begun), suc=False, cod="canceled", mic=17, dlv=1)
    of_both = list(dict.fromkeys([*recorded.evidence(plain), *recorded.evidence(told)]))
    stopped = recorded.audit(of_both, [begun, cancel, ended])
    return [
        *alone,
        archive("records of every kind, with evidence", recorded.audit(full, [item for _, item in kinds]), kinds),
        archive("evidence alone", recorded.audit(full, []), []),
        archive("a record twice, which counts once", recorded.audit([], [note, note]), [("checkpoint", note)]),
        archive("a record message of a batch", batched, [("checkpoint", note)]),
        archive("a guard id", recorded.audit(recorded.evidence(core), [opened], id=guard), [("decision", opened)]),
        archive("after its exp, at its entry's time", recorded.audit([], [note], iat=NOW - 2 * HOUR, exp=NOW - HOUR),
                [("checkpoint", note)]),
        archive("a cancel, and the outcome of what it ended", stopped,
                [("decision", begun), ("decision", cancel), ("outcome", ended)]),
        decided("a cancel", stopped, cancel, told),
        _decided("a task", plain),
        _decided("a task of a batch", second),
        _decided("a task for a user, with its ancestor", child, above),
        _decided("a task for a user whose context lives as long as the format allows", day_child, day_above),
        _decided("a task and its body", child, above, body=BODY.hex()),
        _decided("a task with its body recorded", child, above, bdy=BODY),
        decided("a call", recorded.audit(recorded.evidence(core), [opened]), opened, core),
        decided("one of two of one batch", recorded.audit(recorded.evidence(first), both), both[0], first),
        decided("opened 5 s after its entry", recorded.audit(recorded.evidence(core), [late]), late, core),
    ]  # fmt: skip


def _decided(name: str, message: Message, *above: Message, bdy: bytes | None = None, **given: Json) -> Case:
    record = recorded.decision(message, bdy=bdy)
    return decided(name, recorded.audit(recorded.evidence(message, *above), [record]), record, message, **given)


def refused() -> list[Case]:
    """Return audit messages and decided messages that are refused."""
    return [*_refused_audits(), *_refused_decided()]


def _refused_audits() -> list[Case]:
    plain = Message()
    note = recorded.records(plain)["checkpoint"][0]
    good, evidence, bad = recorded.audit([], [note]), recorded.evidence(plain), ("bad_digest", 9)
    bodies: dict[str, bytes] = {
        "no array": pack({}), "nothing": b"", "an array of two": pack([1, []]), "version 2": pack([2, [], [note]]),
        "version true": pack([True, [], [note]]), "no items": pack([1, [], []]),
        "an item of text": pack([1, [], ["r"]]),
        "evidence that is a record": pack([1, [note], []]), "a record that is evidence": pack([1, [], evidence]),
        "evidence twice": pack([1, [evidence[0], evidence[0]], []]),
        "evidence of no table": pack([1, [pack(["x"])], []]),
        "evidence with a token of 4,097 bytes": pack([1, [pack(["credential", 1, bytes(4_097)])], []]),
        "4,097 items": pack([1, [], [b""] * 4_097]),
        "something after it": pack([1, [], [note]]) + b"\x00",
    }  # fmt: skip
    return [
        archive("a task", plain, ("wrong_kind", 3), subject="task.inventory.update"),
        archive("on another subject", good, ("wrong_subject", 3), subject="audit.planner"),
        archive("on the subject of another", recorded.audit([], [note], to="audit.planner"), ("wrong_subject", 3),
                subject="audit.planner"),
        archive("with aud", recorded.audit([], [note], aud=PLANNER), ("malformed", 2)),
        archive("with a credential that had expired", good, ("credential_expired", 7), time=NOW + HOUR),
        archive("by a key that nobody knew", good, ("unknown_key", 7), bundles="rotated"),
        archive("another credential", replace(good, elements={4: party(EDGE).credential}), ("bad_credential", 7)),
        archive("another signature", replace(good, proof=_FORGED), ("bad_signature", 8)),
        archive("the hash of the body in place of the root",
                recorded.audit([], [note], dig=sha256(good.body).digest()), bad),
        archive("the root in another order",
                replace(recorded.audit(evidence, [note]), fields=recorded.audit([note], evidence).fields), bad),
        *(archive(f"a body: {name}", _of_body(body), bad) for name, body in bodies.items()),
        *(archive(name, recorded.audit([], [item]), bad) for name, item in recorded.misshapen(plain).items()),
        archive("one misshapen record among good ones", recorded.audit([], [note, encode([])]), bad),
        archive("a context beside it", replace(good, elements={5: context()}), ("bad_context", 10)),
        archive("an ancestor beside it", replace(good, elements={6: [parent().ancestor()]}), ("bad_chain", 11)),
    ]  # fmt: skip


def _of_body(body: bytes) -> Message:
    """Return a record message of a body that is none, signed as well as it can be."""
    return replace(recorded.audit([], [b"x"]), body=body)


def _refused_decided() -> list[Case]:
    user = context()
    above = parent(user)
    child = Message(context=user, ancestors=(above.ancestor(),))
    record, full = recorded.decision(child), recorded.evidence(child, above)
    credential, context_item, edge, ancestor = full[0], full[2], full[1], full[3]
    late = token(EDGE, party(EDGE).key.public, claims={"exp": NOW // SECOND})
    expiring = replace(parent(), credential=Credential(1, late))
    of_expiring = Message(ancestors=(expiring.ancestor(),))
    items = recorded.evidence(of_expiring, expiring)
    ended = Message(fields={"exp": NOW + SECOND, "end": NOW + SECOND})
    links = [Message(sender=party(INVENTORY))]
    for number in range(9):
        above_it = tuple(link.ancestor() for link in reversed(links))[:1]
        links.append(Message(sender=party(INVENTORY), fields={"id": message_id(20 + number)}, ancestors=above_it))
    chain = recorded.evidence(links[-1], *links[:-1])

    def case(name: str, items: list[bytes], expect: tuple[str, int], what: bytes = record) -> Case:
        return decided(name, recorded.audit(items, [what]), what, expect)

    forged_context = encode(["context", user.payload, [1, 0, [], _FORGED.signature]])
    forged_ancestor = encode(["ancestor", above.raw(), [1, 0, [], _FORGED.signature]])
    return [
        case("a header that is none", full, ("malformed", 2), recorded.decision(child, hdr=b"\x80")),
        case("opened over 5 s after its entry", full, ("not_yet_valid", 5),
             recorded.core(child, opn=NOW + 8 * SECOND + 1)),
        case("stored over 5 s after its entry", full, ("not_yet_valid", 5),
             recorded.decision(child, sto=NOW + 8 * SECOND + 1)),
        case("no evidence at all", [], ("bad_credential", 7)),
        case("no credential", full[1:], ("bad_credential", 7)),
        case("a credential that had not begun", full, ("bad_credential", 7),
             recorded.decision(child, sto=NOW - MINUTE - 6 * SECOND)),
        case("another signature", full, ("bad_signature", 8),
             recorded.decision(child, prf=[1, 0, [], _FORGED.signature])),
        decided("another body", recorded.audit(full, [record]), record, ("bad_digest", 9), body=b"{}".hex()),
        case("another body recorded", full, ("bad_digest", 9), recorded.decision(child, bdy=b"{}")),
        case("an empty body recorded", full, ("bad_digest", 9), recorded.decision(child, bdy=b"")),
        case("no context", [credential, edge, ancestor], ("bad_context", 10)),
        case("no credential of the context", [credential, context_item, ancestor], ("bad_credential", 10)),
        case("a context under another signature", [credential, edge, forged_context, ancestor], ("bad_signature", 10)),
        decided("who may not mint", recorded.audit(full, [record]), record, ("context_issuer_refused", 10),
                minters=[PLANNER]),
        case("no ancestor", [credential, edge, context_item], ("bad_chain", 11)),
        case("an ancestor under another signature", [credential, edge, context_item, forged_ancestor],
             ("bad_signature", 11)),
        case("no credential of an ancestor", [items[0], *items[2:]], ("bad_credential", 11),
             recorded.decision(of_expiring)),
        case("an expired credential of an ancestor", items, ("credential_expired", 11), recorded.decision(of_expiring)),
        case("stored at its end", recorded.evidence(ended), ("bad_chain", 11), recorded.decision(ended)),
        case("nine ancestors", chain, ("chain_too_long", 11), recorded.decision(links[-1])),
    ]  # fmt: skip
