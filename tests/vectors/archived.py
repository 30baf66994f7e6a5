"""The archive profile: audit messages of every kind of record, and what was decided, proved again from evidence."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from vectors.cases import Case, archive, decided
from vectors.issuing import EDGE, HOUR, INVENTORY, MINUTE, NOW, PLANNER, SECOND, party, token
from vectors.refused_live import call
from vectors.refused_trust import parent
from vectors.world import BODY, Message, batch, context, message_id

from sealbus.envelopes.codec import Value, encode, pack
from sealbus.envelopes.merkle import leaf_hash, root
from sealbus.envelopes.wire import Credential, Proof

__all__ = ["accepted", "refused"]

_FORGED = Proof(1, 0, (), b"\x01" * 64)
_INPUT = b'{"v":1}'


def _audit(evidence: list[bytes], records: list[bytes], **fields: object) -> Message:
    """Return the inventory's record message of these items."""
    own: dict[str, object] = {
        "t": "record", "aud": None, "end": None, "exp": NOW + 24 * HOUR, "id": message_id(9), "to": "audit.inventory",
        "typ": "application/vnd.sealbus.audit.v1", "dig": root([leaf_hash(item) for item in (*evidence, *records)]),
    }  # fmt: skip
    return Message(sender=party(INVENTORY), body=pack([1, evidence, records]), fields=own | fields)


def _map(kind: str, **entries: Value) -> bytes:
    return encode({"v": 1, "k": kind, **entries}, text_bytes=2_048)


def _proof(message: Message) -> list[Value]:
    size, index, path, signature = message.prf()
    return [size, index, list(path), signature]


def _decision(message: Message, **changes: Value) -> bytes:
    """Return the record that `message`, from a stream, was allowed."""
    entries: dict[str, Value] = {
        "hdr": message.raw(), "prf": _proof(message), "act": "inventory.update",
        "str": "TASKS", "seq": 7, "sto": NOW + SECOND, "dlv": 1, "inp": _INPUT, "alw": True, "rsn": ["owner"],
        "obl": b'[{"log":true}]', "rev": "r1", "pol": "starter", "eng": "embedded", "mic": 17,
    } | changes  # fmt: skip
    return _map("decision", **{key: value for key, value in entries.items() if value is not None})


def _evidence(message: Message, *above: Message) -> list[bytes]:
    """Return the evidence of `message` and its ancestors, each item once."""
    items: list[Value] = []
    for one in (message, *above):
        items.append(["credential", one.cred().kind, one.cred().token])
    if message.context is not None:
        size, index, path, signature = message.context.proof
        items.append(["context", message.context.payload, [size, index, list(path), signature]])
        items.append(["credential", message.context.credential.kind, message.context.credential.token])
    items += [["ancestor", one.raw(), _proof(one)] for one in above]
    return list(dict.fromkeys(encode(item) for item in items))


def _denied(message: Message, code: str, **changes: Value) -> bytes:
    asked = dict.fromkeys(("rsn", "obl", "rev", "pol", "eng", "mic"))
    return _decision(message, **(asked | {"alw": False, "cod": code} | changes))


def _core(message: Message, **changes: Value) -> bytes:
    """Return the record about a call that was opened just after it was made."""
    place: dict[str, Value] = {"str": None, "seq": None, "sto": None, "opn": NOW + SECOND}
    return _decision(message, **(place | changes))


def _records(message: Message) -> dict[str, list[bytes]]:
    """Return every kind of record in its shortest and its fullest form."""
    leaf, hashes = bytes(range(32)), [bytes([number]) * 32 for number in range(3)]
    many: list[Value] = [number.to_bytes(32, "big") for number in range(1_024)]
    codes: dict[str, Value] = {"denied": 40, "bad_body": 1}
    return {
        "decision": [
            _decision(message), _decision(message, rsn=None, obl=None), _core(message), _denied(message, "bad_body"),
            _denied(message, "resource_not_found", inp=None), _denied(message, "resource_unavailable", dlv=5, inp=None),
            _denied(message, "policy_unavailable"), _denied(message, "policy_unavailable", eng="sidecar", mic=250_000),
            _denied(message, "policy_error", inp=None), _decision(message, alw=False, cod="denied"),
            _decision(message, inp=bytes(65_536)),
        ],
        "outcome": [
            _map("outcome", dec=leaf, suc=True, mic=0, dlv=1),
            _map("outcome", dec=leaf, suc=False, cod="handler_failed", mic=1_500, dlv=2, out=list[Value](hashes)),
            _map("outcome", dec=leaf, suc=True, mic=1, dlv=1, out=many),
            _map("outcome", dec=leaf, suc=True, mic=1, dlv=1, out=many, cnt=1_025),
        ],
        "bundle": [
            _map("bundle", dom="example.org", cur=NOW, jwt=b'{"keys":[]}'),
            _map("bundle", dom="example.org", cur=NOW, jwt=b'{"keys":[]}', x5c=[b"first", b"second"]),
        ],
        "policy": [_map("policy", rev="r1", sha=leaf, siz=4_096, loc="nats://objects/policies/r1")],
        "checkpoint": [_map("checkpoint", **{"not": b"example.org/audit\n1\nroot\n"})],
        "denials": [_map("denials", iss=PLANNER, min=NOW // MINUTE * MINUTE, cnt=codes)],
    }  # fmt: skip


def _misshapen(message: Message) -> dict[str, bytes]:
    """Return records that are of no table."""
    leaf = bytes(32)
    ok: dict[str, Value] = {"dec": leaf, "suc": True, "mic": 0, "dlv": 1}
    plain: dict[str, Value] = {"rev": "r", "sha": leaf, "siz": 1, "loc": ""}
    hashes: list[Value] = [bytes(32)] * 1_025
    bad = {
        "no map": encode([1]), "nothing": b"", "an unknown kind": _map("letter"), "no kind": encode({"v": 1}),
        "version 2": encode({"v": 2, "k": "checkpoint", "not": b"n"}),
        "version true": encode({"v": True, "k": "checkpoint", "not": b"n"}),
        "an unknown key": _map("checkpoint", **{"not": b"n", "x": 1}),
        "a note of 0 bytes": _map("checkpoint", **{"not": b""}),
        "a note of 8,193 bytes": _map("checkpoint", **{"not": bytes(8_193)}),
        "a hash of 31 bytes": _map("policy", **plain | {"sha": bytes(31)}),
        "a policy of 0 bytes": _map("policy", **plain | {"siz": 0}),
        "a trust domain in upper case": _map("bundle", dom="Example.org", cur=1, jwt=b"{}"),
        "an empty array of certificates": _map("bundle", dom="example.org", cur=1, jwt=b"{}", x5c=[]),
        "33 certificates": _map("bundle", dom="example.org", cur=1, jwt=b"{}", x5c=[b"c"] * 33),
        "a minute that is not one": _map("denials", iss=PLANNER, min=1, cnt={"denied": 1}),
        "denials of nothing": _map("denials", iss=PLANNER, min=0, cnt={}),
        "denials of 0": _map("denials", iss=PLANNER, min=0, cnt={"denied": 0}),
        "denials by another code": _map("denials", iss=PLANNER, min=0, cnt={"expired": 1}),
        "success with a code": _map("outcome", **ok | {"cod": "expired"}),
        "a failure without a code": _map("outcome", **ok | {"suc": False}),
        "a failure of an unknown code": _map("outcome", **ok | {"suc": False, "cod": "nonsense"}),
        "an empty array of hashes": _map("outcome", **ok | {"out": []}),
        "1,025 hashes": _map("outcome", **ok | {"out": hashes}),
        "a count where there is room": _map("outcome", **ok | {"out": [bytes(32)], "cnt": 1}),
        "delivery 0": _map("outcome", **ok | {"dlv": 0}),
        "allowed with a code": _decision(message, cod="denied"),
        "refused without a code": _decision(message, alw=False),
        "refused with a code of step 7": _decision(message, alw=False, cod="bad_credential"),
        "allowed without an input": _decision(message, inp=None),
        "allowed without a revision": _decision(message, rev=None),
        "an engine without its time": _decision(message, mic=None),
        "a bad body and a policy": _denied(message, "bad_body", rev="r1"),
        "both stream and core": _decision(message, opn=NOW),
        "neither stream nor core": _decision(message, str=None, seq=None, sto=None),
        "core, delivered twice": _core(message, dlv=2),
        "sequence 0": _decision(message, seq=0),
        "an empty array of reasons": _decision(message, rsn=[]),
        "33 reasons": _decision(message, rsn=["r"] * 33),
        "empty obligations": _decision(message, obl=b""),
        "an input of 65,537 bytes": _decision(message, inp=bytes(65_537)),
        "a header of 8,193 bytes": _decision(message, hdr=bytes(8_193)),
        "a proof of size 0": _decision(message, prf=[0, 0, [], bytes(64)]),
        "an action with a star": _decision(message, act="inventory.*"),
    }  # fmt: skip
    return {f"a record: {name}": item for name, item in bad.items()}


def accepted() -> list[Case]:
    """Return audit messages, and decided messages inside them."""
    plain, user = Message(), context()
    above = parent(user)
    child = Message(context=user, ancestors=(above.ancestor(),))
    first, second = batch(plain, Message(fields={"id": message_id(3)}))
    core = call(id=message_id(4))
    kinds = [(kind, item) for kind, items in _records(plain).items() for item in items]
    alone = [archive(f"a record: {kind} {number}", _audit([], [item]), [(kind, item)])
             for kind, items in _records(plain).items() for number, item in enumerate(items)]  # fmt: skip
    note = _records(plain)["checkpoint"][0]
    guard = sha256(b"decision" + INVENTORY.encode() + core.digest()).digest()[:16]
    batched, _ = batch(_audit([], [note]), _audit([], [note], id=message_id(10)))
    full = _evidence(child, above)
    return [
        *alone,
        archive("records of every kind, with evidence", _audit(full, [item for _, item in kinds]), kinds),
        archive("evidence alone", _audit(full, []), []),
        archive("a record twice, which counts once", _audit([], [note, note]), [("checkpoint", note)]),
        archive("a record message of a batch", batched, [("checkpoint", note)]),
        archive("a guard id", _audit(_evidence(core), [_core(core)], id=guard), [("decision", _core(core))]),
        archive("after its exp, at its entry's time", _audit([], [note], iat=NOW - 2 * HOUR, exp=NOW - HOUR),
                [("checkpoint", note)]),
        decided("a task", _audit(_evidence(plain), [_decision(plain)]), _decision(plain), plain),
        decided("a task of a batch", _audit(_evidence(second), [_decision(second)]), _decision(second), second),
        decided("a task for a user, with its ancestor", _audit(full, [_decision(child)]), _decision(child), child),
        decided("a task and its body", _audit(full, [_decision(child)]), _decision(child), child, body=BODY.hex()),
        decided("a call", _audit(_evidence(core), [_core(core)]), _core(core), core),
        decided("two of one batch", _audit(_evidence(first), [_decision(first), _decision(second)]),
                _decision(first), first),
        decided("opened 5 s after its entry", _audit(_evidence(core), [_core(core, opn=NOW + 8 * SECOND)]),
                _core(core, opn=NOW + 8 * SECOND), core),
    ]  # fmt: skip


def refused() -> list[Case]:
    """Return audit messages and decided messages that are refused."""
    return [*_refused_audits(), *_refused_decided()]


def _refused_audits() -> list[Case]:
    plain = Message()
    note = _records(plain)["checkpoint"][0]
    good, evidence, bad = _audit([], [note]), _evidence(plain), ("bad_digest", 9)
    bodies: dict[str, bytes] = {
        "no array": pack({}), "nothing": b"", "an array of two": pack([1, []]), "version 2": pack([2, [], [note]]),
        "version true": pack([True, [], [note]]), "no items": pack([1, [], []]), "an item of text": pack([1, [], ["r"]]),
        "evidence that is a record": pack([1, [note], []]), "a record that is evidence": pack([1, [], evidence]),
        "evidence twice": pack([1, [evidence[0], evidence[0]], []]), "evidence of no table": pack([1, [pack(["x"])], []]),
        "evidence with a token of 4,097 bytes": pack([1, [pack(["credential", 1, bytes(4_097)])], []]),
        "4,097 items": pack([1, [], [pack({"k": "checkpoint", "not": b"%d" % n, "v": 1}) for n in range(4_097)]]),
        "something after it": pack([1, [], [note]]) + b"\x00",
    }  # fmt: skip
    return [
        archive("a task", plain, ("wrong_kind", 3), subject="task.inventory.update"),
        archive("on another subject", good, ("wrong_subject", 3), subject="audit.planner"),
        archive("on the subject of another", _audit([], [note], to="audit.planner"), ("wrong_subject", 3),
                subject="audit.planner"),
        archive("with aud", _audit([], [note], aud=PLANNER), ("malformed", 2)),
        archive("with a credential that had expired", good, ("credential_expired", 7), time=NOW + HOUR),
        archive("by a key that nobody knew", good, ("unknown_key", 7), bundles="rotated"),
        archive("another credential", replace(good, elements={4: party(EDGE).credential}), ("bad_credential", 7)),
        archive("another signature", replace(good, proof=_FORGED), ("bad_signature", 8)),
        archive("the hash of the body in place of the root", _audit([], [note], dig=sha256(good.body).digest()), bad),
        archive("the root in another order", replace(_audit(evidence, [note]), fields=_audit([note], evidence).fields), bad),
        *(archive(f"a body: {name}", _of_body(body), bad) for name, body in bodies.items()),
        *(archive(name, _audit([], [item]), bad) for name, item in _misshapen(plain).items()),
        archive("one misshapen record among good ones", _audit([], [note, encode([])]), bad),
        archive("a context beside it", replace(good, elements={5: context()}), ("bad_context", 10)),
        archive("an ancestor beside it", replace(good, elements={6: [parent().ancestor()]}), ("bad_chain", 11)),
    ]  # fmt: skip


def _of_body(body: bytes) -> Message:
    """Return a record message of a body that is none, signed as well as it can be."""
    return replace(_audit([], [b"x"]), body=body)


def _refused_decided() -> list[Case]:
    user = context()
    above = parent(user)
    child = Message(context=user, ancestors=(above.ancestor(),))
    record, full = _decision(child), _evidence(child, above)
    credential, context_item, edge, ancestor = full[0], full[2], full[1], full[3]
    late = token(EDGE, party(EDGE).key.public, claims={"exp": NOW // SECOND})
    expiring = replace(parent(), credential=Credential(1, late))
    of_expiring = Message(ancestors=(expiring.ancestor(),))
    ended = Message(fields={"exp": NOW + SECOND, "end": NOW + SECOND})
    links = [Message(sender=party(INVENTORY))]
    for number in range(9):
        above_it = tuple(link.ancestor() for link in reversed(links))[:1]
        links.append(Message(sender=party(INVENTORY), fields={"id": message_id(20 + number)}, ancestors=above_it))
    chain = _evidence(links[-1], *links[:-1])

    def case(name: str, items: list[bytes], expect: tuple[str, int], what: bytes = record) -> Case:
        return decided(name, _audit(items, [what]), what, expect)

    forged_context = encode(["context", user.payload, [1, 0, [], _FORGED.signature]])
    forged_ancestor = encode(["ancestor", above.raw(), [1, 0, [], _FORGED.signature]])
    return [
        case("a header that is none", full, ("malformed", 2), _decision(child, hdr=b"\x80")),
        case("opened over 5 s after its entry", full, ("not_yet_valid", 5),
             _core(child, opn=NOW + 8 * SECOND + 1)),
        case("stored over 5 s after its entry", full, ("not_yet_valid", 5), _decision(child, sto=NOW + 8 * SECOND + 1)),
        case("no evidence at all", [], ("bad_credential", 7)),
        case("no credential", full[1:], ("bad_credential", 7)),
        case("a credential that had not begun", full, ("bad_credential", 7), _decision(child, sto=NOW - MINUTE - 6 * SECOND)),
        case("another signature", full, ("bad_signature", 8), _decision(child, prf=[1, 0, [], _FORGED.signature])),
        decided("another body", _audit(full, [record]), record, ("bad_digest", 9), body=b"{}".hex()),
        case("no context", [credential, edge, ancestor], ("bad_context", 10)),
        case("no credential of the context", [credential, context_item, ancestor], ("bad_credential", 10)),
        case("a context under another signature", [credential, edge, forged_context, ancestor], ("bad_signature", 10)),
        decided("who may not mint", _audit(full, [record]), record, ("context_issuer_refused", 10), minters=[PLANNER]),
        case("no ancestor", [credential, edge, context_item], ("bad_chain", 11)),
        case("an ancestor under another signature", [credential, edge, context_item, forged_ancestor], ("bad_signature", 11)),
        case("no credential of an ancestor", _evidence(of_expiring, expiring)[:1] + _evidence(of_expiring, expiring)[2:],
             ("bad_credential", 11), _decision(of_expiring)),
        case("an expired credential of an ancestor", _evidence(of_expiring, expiring), ("credential_expired", 11),
             _decision(of_expiring)),
        case("stored at its end", _evidence(ended), ("bad_chain", 11), _decision(ended)),
        case("nine ancestors", chain, ("chain_too_long", 11), _decision(links[-1])),
    ]  # fmt: skip
